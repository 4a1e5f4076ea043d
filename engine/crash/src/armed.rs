//! What points do when a test has armed them.

use crate::{BUGS, is_point};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Error, Result, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Later messages that a delayed one lets pass.
const DELAYED_BY: u32 = 2;
const ACTIONS: &[&str] = &["kill", "stop", "error", "sleep", "drop", "double", "delay"];

struct Armed {
    name: String,
    action: &'static str,
    nth: u64,
    worker: Option<u32>,
    hits: Mutex<u64>,
}

/// A delayed message, and how many more go before it.
type Held = (Box<dyn Any + Send>, u32);

/// Says what happens at a point, given its name and the worker, if it is one's.
pub type Handler = Arc<dyn Fn(&'static str, Option<u32>) -> Result<()> + Send + Sync>;

thread_local! {
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
    static WORKER: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Says that everything on this thread is the work of a worker.
pub fn this_thread_is_worker(worker: u32) {
    WORKER.set(Some(worker));
}

/// From now on `handler` alone says what happens at the points that this thread passes; `None` gives
/// them back to the environment. For the simulator, whose threads belong to many processes.
pub fn on_this_thread(handler: Option<Handler>) {
    HANDLER.set(handler);
}

fn handler() -> Option<Handler> {
    HANDLER.with_borrow(Clone::clone)
}

fn armed() -> &'static [Armed] {
    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();
    ARMED.get_or_init(|| {
        let text = std::env::var("STAUNCH_CRASH").unwrap_or_default();
        text.split(',').filter(|one| !one.is_empty()).map(parse).collect()
    })
}

fn parse(text: &str) -> Armed {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default().to_owned();
    assert!(
        is_point(&name),
        "STAUNCH_CRASH: there is no point {name:?}; those of your own have a / in their names, as in my_sink/half_sent"
    );
    let action = parts.next().unwrap_or("kill");
    let known = ACTIONS.iter().find(|known| **known == action);
    let action = known.unwrap_or_else(|| panic!("STAUNCH_CRASH: {action:?} is none of {ACTIONS:?}"));
    let mut number = || parts.next().map(|n| n.parse().expect("STAUNCH_CRASH: hit and worker are numbers"));
    let nth = number().unwrap_or(1);
    let worker = number().map(|worker| worker as u32);
    Armed { name, action, nth, worker, hits: Mutex::default() }
}

/// The file that a variable of the environment names, for appending; opened once.
pub(crate) fn file_named_by(variable: &'static str) -> Option<&'static File> {
    static FILES: OnceLock<Mutex<HashMap<&'static str, Option<&'static File>>>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os(variable)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.unwrap_or_else(|e| panic!("{variable}: cannot open {}: {e}", path.display()));
        Some(&*Box::leak(Box::new(file)))
    };
    *lock(FILES.get_or_init(Mutex::default)).entry(variable).or_insert_with(open)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the bug `name` is planted.
pub fn bug(name: &'static str) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("STAUNCH_BUG").ok()).as_deref();
    if let Some(planted) = planted {
        assert!(BUGS.contains(&planted), "STAUNCH_BUG: there is no bug {planted:?}");
    }
    planted == Some(name)
}

/// See the documentation of the crate.
///
/// # Errors
/// Only when a test asked for one here.
pub fn point(name: &'static str) -> Result<()> {
    pass_by(name, WORKER.get())
}

/// [`point`] for a worker whose thread this is not.
///
/// # Errors
/// Only when a test asked for one here.
pub fn point_of(name: &'static str, worker: u32) -> Result<()> {
    pass_by(name, Some(worker))
}

fn pass_by(name: &'static str, worker: Option<u32>) -> Result<()> {
    if let Some(handler) = handler() {
        return handler(name, worker);
    }
    hit(name, worker).map_or(Ok(()), |action| act(name, action))
}

/// Sends a message of a worker through the point `name`.
pub fn message<M: Clone + Send + 'static>(name: &'static str, worker: u32, message: M, send: impl Fn(M)) {
    static HELD: OnceLock<Mutex<HashMap<(&'static str, u32), Held>>> = OnceLock::new();
    if let Some(handler) = handler() {
        // A message cannot fail.
        let _ = handler(name, Some(worker));
        return send(message);
    }
    let action = hit(name, Some(worker));
    let held = HELD.get_or_init(Mutex::default);
    let due = next_due(&mut lock(held), (name, worker));
    match action {
        Some("drop") => {}
        Some("double") => {
            send(message.clone());
            send(message);
        }
        Some("delay") => {
            lock(held).insert((name, worker), (Box::new(message), DELAYED_BY));
        }
        Some(action) => {
            // A message cannot fail.
            let _ = act(name, action);
            send(message);
        }
        None => send(message),
    }
    if let Some((late, _)) = due
        && let Ok(late) = late.downcast::<M>()
    {
        send(*late);
    }
}

/// The delayed message that goes after the one that passes now.
fn next_due(held: &mut HashMap<(&'static str, u32), Held>, place: (&'static str, u32)) -> Option<Held> {
    let (_, left) = held.get_mut(&place)?;
    *left -= 1;
    if *left == 0 { held.remove(&place) } else { None }
}

/// Counts a hit; returns the action if this is the one to act at.
fn hit(name: &'static str, worker: Option<u32>) -> Option<&'static str> {
    debug_assert!(is_point(name), "{name} is not in the list of points, and has no / in it");
    if let Some(mut hits) = file_named_by("STAUNCH_CRASH_HITS") {
        let of = worker.map(|worker| format!(" {worker}")).unwrap_or_default();
        let line = format!("{name}{of}\n");
        hits.write_all(line.as_bytes()).unwrap_or_else(|e| panic!("STAUNCH_CRASH_HITS: {e}"));
    }
    let here = |armed: &&Armed| armed.name == name && (armed.worker.is_none() || armed.worker == worker);
    armed().iter().filter(here).fold(None, |found, armed| {
        let mut hits = lock(&armed.hits);
        *hits += 1;
        if *hits == armed.nth { Some(armed.action) } else { found }
    })
}

fn act(name: &'static str, action: &str) -> Result<()> {
    match action {
        "kill" => signal(libc::SIGKILL),
        "stop" => signal(libc::SIGSTOP),
        "sleep" => std::thread::sleep(Duration::from_secs(1)),
        "error" => return Err(Error::other(format!("asked for at crash point {name}"))),
        other => panic!("STAUNCH_CRASH: {name} is no message, it cannot {other}"),
    }
    Ok(())
}

fn signal(signal: i32) {
    // SAFETY: `kill` and `getpid` take no pointers.
    unsafe { libc::kill(libc::getpid(), signal) };
    // The signal reaches the process before the call returns, or as soon as another thread runs.
    std::thread::sleep(Duration::from_millis(100));
}

//! Signals as requests to the job.

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use staunch_core::{Controls, Error, Request, Result};
use std::time::SystemTime;

/// Turns signals into requests until the process ends. A second SIGINT or SIGTERM ends it at once: that
/// is as safe as a crash, and as rude.
pub(crate) fn listen(controls: Controls) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGUSR2])
        .map_err(|e| Error::external("cannot listen for signals").caused_by(e))?;
    let body = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGUSR1 => controls.request(Request::Savepoint(savepoint_name())),
                SIGUSR2 => controls.request(Request::Drain),
                _ if stopping => std::process::exit(130),
                _ => {
                    stopping = true;
                    controls.request(Request::Stop);
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("staunch-signals".into())
        .spawn(body)
        .map_err(|e| Error::external("cannot start a thread").caused_by(e))?;
    Ok(())
}

fn savepoint_name() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("savepoint-{}", since.as_millis())
}

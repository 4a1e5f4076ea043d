use super::*;
use crate::config::{Guarantee, RunConfig};
use crate::context::SharedValues;
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::runtime::process::agreed::Agreed;
use crate::runtime::process::io::Io;
use crate::runtime::process::link::{FromProcess, Link};
use crate::runtime::process::shared::SharedParts;
use staunch_checkpoint::Generation;
use staunch_state::table::Fill;
use staunch_state::{Frozen, InMemoryStorage, Table, hash_key};
use std::collections::BTreeMap;
use std::path::Path;

/// The coordinator of a process that nobody listens to.
struct Deaf;

impl Link for Deaf {
    fn tell(&self, _: FromProcess) -> bool {
        true
    }
}

/// A table that sees how it is called, and whose disk can stand still.
struct Watched {
    table: Table<u64, (), u64>,
    /// Slices take nothing, as when too much waits for the disk.
    stands_still: bool,
    slices: usize,
    /// The most entries that were taken off the budget in one call of [`States`].
    largest: usize,
    since: usize,
}

impl Fill for Watched {
    fn groups(&self) -> Groups {
        self.table.groups()
    }
    fn load_section(&mut self, group: u16, bytes: &[u8]) -> std::result::Result<u64, StateError> {
        self.table.load_section(group, bytes)
    }
    fn scratch(&self) -> &Path {
        self.table.scratch()
    }
    fn adopt(&mut self) -> std::result::Result<(), StateError> {
        self.table.adopt()
    }
    fn import(&mut self, folder: &Path, groups: &[u16]) -> std::result::Result<u64, StateError> {
        self.table.import(folder, groups)
    }
}

impl AnyTable for Watched {
    fn name(&self) -> &str {
        self.table.name()
    }
    fn owned(&self) -> &[u16] {
        self.table.owned()
    }
    fn check_types(&self) -> std::result::Result<(), StateError> {
        self.table.check_types()
    }
    fn begin_freeze(&mut self, mode: FreezeMode) -> std::result::Result<(), StateError> {
        self.table.begin_freeze(mode)
    }
    fn is_freezing(&self) -> bool {
        self.table.is_freezing()
    }
    fn freeze_slice(&mut self, budget: &mut usize) -> std::result::Result<bool, StateError> {
        self.slices += 1;
        if self.stands_still {
            return Ok(false);
        }
        let before = *budget;
        let done = AnyTable::freeze_slice(&mut self.table, budget)?;
        self.since += before - *budget;
        self.largest = self.largest.max(self.since);
        Ok(done)
    }
    fn take_frozen(&mut self) -> std::result::Result<Frozen, StateError> {
        self.table.take_frozen()
    }
    fn maintain(&mut self) -> std::result::Result<bool, StateError> {
        self.table.maintain()
    }
    fn wants_checkpoint(&self) -> bool {
        self.table.wants_checkpoint()
    }
    fn let_dirty_move(&mut self) {
        self.table.let_dirty_move();
    }
    fn needs_base(&self) -> bool {
        self.table.needs_base()
    }
    fn stats(&self) -> TableStats {
        self.table.stats()
    }
}

/// A worker's states with this many entries each, and what has to live as long.
struct Fixture {
    states: States,
    tables: Vec<Rc<RefCell<Watched>>>,
    _io: tokio::runtime::Runtime,
}

fn fixture(entries: &[u64]) -> Fixture {
    let io = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let config = RunConfig::new("test", "nowhere");
    let agreed = Agreed {
        job: "test".to_owned(),
        lineage: "life".to_owned(),
        generation: Generation(1),
        first_epoch: CheckpointId(1),
        restored: None,
        highest_ms: BTreeMap::new(),
        groups: 8,
        guarantee: Guarantee::ExactlyOnce,
        processes: 1,
        workers: 1,
        plan: 0,
    };
    let shared = Arc::new(Shared::new(SharedParts {
        agreed: Arc::new(agreed),
        config,
        plan: Plan::default(),
        storage: Arc::new(InMemoryStorage::new()),
        io: Io::new(io.handle().clone()),
        link: Box::new(Deaf),
        metrics: Metrics::new("test"),
        values: SharedValues::default(),
        spill_dir: std::env::temp_dir().join("staunch-states-test"),
        spill: SpillShared::with_defaults(),
        stateful_steps: 1,
        sources: Vec::new(),
    }));
    let settings = TableSettings { live: Some((Arc::clone(&shared), 0)) };
    let mut states = States::new(&shared, "step", 0);
    let mut tables = Vec::new();
    for (number, entries) in entries.iter().enumerate() {
        let name = format!("step.{number}");
        let mut table = Table::new(settings.table(&name));
        let mut keys: Vec<u64> = (0..*entries).collect();
        let hashes: Vec<u64> = keys.iter().map(hash_key).collect();
        table.update_batch(&hashes, &mut keys, |key| (key, ()), |key, value| *value = Some(key)).unwrap();
        let watched = Watched { table, stands_still: false, slices: 0, largest: 0, since: 0 };
        let watched = Rc::new(RefCell::new(watched));
        states.open(name, watched.clone()).unwrap();
        tables.push(watched);
    }
    Fixture { states, tables, _io: io }
}

#[test]
fn the_states_of_two_steps_never_share_a_name() {
    let mut names: Vec<String> = [("a", None), ("a", Some("b")), ("a-b", None), ("a-b", Some("b"))]
        .map(|(step, state)| state_name(step, state))
        .into();
    names.dedup();
    assert_eq!(names, ["a", "a.b", "a-b", "a-b.b"]);
}

#[test]
fn a_worker_goes_on_with_records_while_the_disk_for_frozen_state_is_behind() {
    let Fixture { mut states, tables, _io } = fixture(&[10]);
    tables[0].borrow_mut().stands_still = true;
    assert!(states.begin(CheckpointId(1), None).unwrap());
    states.slice().unwrap();
    assert_eq!(tables[0].borrow().slices, 1, "the worker asked again and again in one slice");
    assert!(states.is_freezing());
    tables[0].borrow_mut().stands_still = false;
    states.slice().unwrap();
    assert!(!states.is_freezing());
}

#[test]
fn a_barrier_waits_for_an_unfinished_freeze_slice_by_slice_and_not_all_at_once() {
    const ENTRIES: u64 = 1_000_000;
    let Fixture { mut states, tables, _io } = fixture(&[ENTRIES]);
    assert!(states.begin(CheckpointId(1), None).unwrap());
    states.slice().unwrap();
    let mut turns = 0;
    loop {
        tables[0].borrow_mut().since = 0;
        if states.begin(CheckpointId(2), None).unwrap() {
            break;
        }
        states.slice().unwrap();
        turns += 1;
    }
    let largest = tables[0].borrow().largest;
    assert!(largest <= 2 * SLICE, "{largest} entries in one turn");
    assert!(turns >= ENTRIES as usize / SLICE - 2, "{turns}");
}

#[test]
fn tables_whose_turn_to_freeze_comes_later_are_swept_in_every_slice() {
    let Fixture { mut states, tables, _io } = fixture(&[3 * SLICE as u64, 10]);
    assert!(states.begin(CheckpointId(1), None).unwrap());
    states.slice().unwrap();
    assert!(states.is_freezing());
    let (first, second) = (tables[0].borrow(), tables[1].borrow());
    assert_eq!((first.largest, second.largest, second.slices), (SLICE, 0, 1));
}

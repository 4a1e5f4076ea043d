//! Jobs that follow tables of a real server: the snapshot, changes, restarts, and what the log can hold.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch_postgres::Change;
use staunch_testing::servers;
use support::items::Items;

const SERVER: &str = "STAUNCH_POSTGRES";

#[test]
fn rows_that_are_there_come_first_and_then_every_change_over_restarts() {
    let Some(url) = servers::address(SERVER) else { return };
    let items = Items::new(&url);
    items.insert(0, 300);
    let copy = items.copy();
    let running = copy.run();
    running.until_count(300);
    items.schema.run("UPDATE items SET n = n + 1 WHERE id < 10; DELETE FROM items WHERE id = 5");
    items.schema.run("UPDATE items SET id = 1000 WHERE id = 6");
    running.until_count(312);
    running.stop();
    items.holds(&copy);
    items.insert(300, 350);
    items.schema.run("TRUNCATE items");
    items.insert(0, 7);
    let running = copy.run();
    running.until_count(312 + 50 + 1 + 7);
    running.stop();
    items.holds(&copy);
    let all = copy.out.committed();
    assert!(
        all[..300].iter().all(|event| event.is_snapshot())
            && all[300..].iter().all(|event| !event.is_snapshot())
    );
    assert!(all.iter().any(|event| event.change == Change::Truncate));
    assert!(all.windows(2).all(|two| two[0].lsn <= two[1].lsn), "the order of commits");
}

#[test]
fn a_snapshot_that_is_interrupted_goes_on_and_neither_loses_nor_doubles_what_changes_meanwhile() {
    let Some(url) = servers::address(SERVER) else { return };
    let items = Items::new(&url);
    items.insert(0, 3000);
    let mut copy = items.copy();
    copy.rate = Some(4000);
    for round in 0..4 {
        let running = copy.run();
        running.until_count(300 + round * 500);
        running.stop();
        let all = copy.out.committed();
        assert!(all.len() < 3000, "it was to be interrupted: {}", all.len());
        // Below what was read, above it, and over the border, both ways.
        items.schema.run(&format!(
            "UPDATE items SET n = n + 1 WHERE id % 3 = 0; DELETE FROM items WHERE id % 100 = {round};
             UPDATE items SET id = 10000 + id WHERE id = 10 + {round}; UPDATE items SET id = -id WHERE id = 2990 + {round};
             INSERT INTO items VALUES ({round} * 100 + {round}, -1, 'again') ON CONFLICT (id) DO UPDATE SET n = -2"
        ));
    }
    copy.rate = None;
    let running = copy.run();
    items.schema.run("INSERT INTO items VALUES (77777, 0, 'last')");
    running.until("the last row", |all| {
        all.iter().any(|event| matches!(&event.change, Change::Insert(row) if row.id == 77_777))
    });
    running.stop();
    items.holds(&copy);
}

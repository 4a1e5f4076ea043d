//! The names: every place at which a process can be broken, and every bug that can be planted.

/// Every point of Staunch itself, in the order of the protocol. Those marked *(worker)* belong to one instance.
pub const POINTS: &[&str] = &[
    // A checkpoint is being taken.
    // The coordinator is about to send the barrier.
    "barrier.due",
    "barrier.sent",
    // (worker) Positions are captured, and nothing of it is known to anybody.
    "source.positions_captured",
    // (worker) A step has a record of the next epoch while other inputs are still in this one.
    "step.some_inputs_aligned",
    // (worker) All inputs are aligned, nothing is frozen.
    "state.aligned",
    // (worker) Frozen, nothing is written.
    "state.frozen",
    // (worker) One file of a shard is in the storage.
    "state.file_written",
    // Any blob: half of its bytes are in a temporary file; all of them; synced; renamed, and the folder
    // not synced.
    "storage.temporary_torn",
    "storage.temporary_written",
    "storage.temporary_synced",
    "storage.visible",
    // (worker) An epoch is about to be cut; it is cut, the next may be written, and nothing is prepared; some output
    // is outside of the process, and prepare is not over (a part file is written and not synced, or a chunk of
    // staged rows is stored, and in no list); all is durable, and nobody knows how it is called.
    "sink.preparing",
    "sink.cut",
    "sink.half_flushed",
    "sink.prepared",
    // (worker) An acknowledgement is about to be sent. These are messages: they can also be lost, doubled
    // or delayed by two later ones of the same instance.
    "ack.source",
    "ack.state",
    "ack.sink",
    // The decision.
    // All have acknowledged.
    "decision.due",
    // The same, while output of an earlier checkpoint is not confirmed.
    "decision.while_pending",
    // A file of splits that have settled is in the storage, and no record names it.
    "splits.stored",
    // The record: half of it in a temporary file; all of it; synced; linked, and the folder not synced.
    "decision.torn",
    "decision.temporary_written",
    "decision.temporary_synced",
    "decision.visible",
    // Decided, nobody was told; sources were told, no sink; a sink was told, perhaps not all.
    "decision.made",
    "decision.sources_told",
    "decision.some_told",
    // Phase two.
    "commit.due",
    // A committer asks a second time.
    "commit.again",
    // One piece of several is at the target.
    "commit.some_done",
    // Everything is at the target, the answer is not here.
    "commit.at_target",
    // A sink is done, and the coordinator may not know.
    "commit.done",
    // All sinks are done, and the job has not gone on.
    "commit.all_done",
    // One file of an expired checkpoint is deleted.
    "expire.some_deleted",
    // A start.
    "recovery.claimed",
    "recovery.sink_fenced",
    // A piece of output that no checkpoint lists is removed.
    "recovery.some_orphans_removed",
    // One sink has published what the checkpoint lists; all have.
    "recovery.some_recommitted",
    "recovery.recommitted",
    // (worker) One file of a shard is loaded; all of the step; the same, with another number of workers.
    "recovery.file_loaded",
    "recovery.state_loaded",
    "recovery.half_redistributed",
    // (worker) A split stands at its position, nothing is read.
    "recovery.split_opened",
];

/// Every bug that can be planted.
pub const BUGS: &[&str] = &[
    // Output is published before its checkpoint is decided.
    "committed_before_decision",
    // A restart does not publish what its checkpoint lists.
    "recommit_skipped",
    // A start takes nothing over: neither the log nor a target refuses those that it replaces.
    "fencing_skipped",
    // Folders are not synced.
    "folder_sync_skipped",
    // Positions in a checkpoint are those of the checkpoint before it.
    "positions_late",
    // The acknowledgement of one sink instance counts for its neighbour too.
    "acknowledgement_counted_twice",
    // Expiring a checkpoint deletes files that a newer one still needs.
    "shared_file_deleted",
    // Records of a later epoch are processed before the barrier.
    "stash_off",
];

/// Whether a point may have this name: it is one of [`POINTS`], or it has a `/` in it. Those with a `/` are left
/// to the connectors of others: `my_sink/half_sent`.
#[must_use]
pub fn is_point(name: &str) -> bool {
    name.contains('/') || POINTS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_slash_are_left_to_others_and_all_others_are_in_the_list() {
        assert!(is_point("my_sink/half_sent") && is_point("commit.due"));
        assert!(!is_point("half_sent") && !is_point("commit.deu") && !is_point(""));
        assert!(!POINTS.iter().chain(BUGS).any(|name| name.contains('/')));
    }
}

//! Every place at which a lab build of the edge can be made to die.
//!
//! Each stands in the sources once, beside a step that makes something durable; the kill tests
//! visit all of them. A name's text says what has happened by then and what has not.

/// The failpoints: name, and what lies before and behind it.
pub const POINTS: &[(&str, &str)] = &[
    ("disk.folder_made", "a folder is there, the one above it is not synced"),
    (
        "disk.leftover_removed",
        "what an earlier death left of a small file is gone, nothing new is there",
    ),
    ("disk.before_create", "a small file is about to be written beside the old one"),
    ("disk.created", "the new file is there and empty"),
    ("disk.written", "the new file has its content, not yet synced"),
    ("disk.synced", "the new file is durable under its temporary name"),
    ("disk.renamed", "the new file has its name, the folder is not synced"),
    ("disk.folder_synced", "the new file is durable, its writer does not know"),
    ("disk.moved", "a file that is set aside has its new name, the folder is not synced"),
    ("disk.move_synced", "a file that is set aside is so durably, others may have to follow"),
    ("identity.key_made", "the key is there, the identity that names it is not"),
    ("identity.made", "the identity is durable"),
    ("identity.aside_made", "the folder for a copied identity is there, nothing is in it"),
    ("identity.aside_moved", "a copied identity is set aside, no new one is made"),
    ("enrolment.before_store", "the brain has enrolled the device, which has nothing on disk"),
    ("enrolment.stored", "the enrolment is durable, nobody is told"),
    ("spool.file_made", "the spool's file is there, empty if it is new"),
    ("spool.opened", "SQLite has the file open and has not read it"),
    ("spool.prepared", "the write-ahead log is on, the format not looked at"),
    ("spool.schema_written", "the tables of a new spool are written and not committed"),
    ("spool.schema_committed", "a new spool is ready"),
    ("spool.set_aside", "a damaged spool is set aside, no new one is there"),
    ("spool.before_write", "a commit is begun, nothing of it written"),
    ("spool.written", "a commit is written and not committed"),
    ("spool.committed", "a commit is durable and nobody told"),
    ("spool.pruned", "old entries are deleted, which is not committed"),
    ("spool.prune_committed", "old entries are gone for good"),
    ("spool.before_close", "the write-ahead log is about to be folded into the file"),
    ("spool.closed", "the write-ahead log is folded into the file and gone"),
    ("track.before_first_commit", "the tree is loaded, the start is not noted"),
    ("track.started", "the start is noted: until it stops, the agent counts as interrupted"),
    ("track.before_clean_mark", "the agent was told to stop, the spool counts as interrupted"),
    ("track.clean_mark_made", "the stop is noted as clean, the spool is not closed"),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_list_names_each_failpoint_of_the_sources_once() {
        let sources = Path::new("src");
        let complaints = faultkit::source::complaints(sources, POINTS).expect("reads");
        assert_eq!(complaints, []);
    }
}

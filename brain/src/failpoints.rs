//! Every place at which a lab build of the brain can be made to die.
//!
//! Each stands in the sources once, beside a step that makes something durable; the kill tests
//! visit all of them. A name's text says what has happened by then and what has not.

/// The failpoints: name, and what lies before and behind it.
pub const POINTS: &[(&str, &str)] = &[
    (
        "file.leftover_removed",
        "what an earlier death left of a small file is gone, nothing new is there",
    ),
    ("file.before_create", "a small file is about to be written beside the old one"),
    ("file.created", "the new file is there and empty"),
    ("file.written", "the new file has its content, not yet synced"),
    ("file.synced", "the new file is durable under its temporary name"),
    ("file.renamed", "the new file has its name, the folder is not synced"),
    ("file.folder_synced", "the new file is durable, its writer does not know"),
    ("file.removed", "a small file is gone, its folder is not synced"),
    ("file.folder_made", "a folder is there, the one above it is not synced"),
    ("identity.folder_made", "the folder of keys is there, no key"),
    ("identity.root_key_made", "the root key is there, the brain's is not"),
    ("identity.brain_key_made", "both keys are there, fleet.json is not"),
    ("identity.made", "fleet.json is there, nothing of what follows it"),
    ("tls.authority_key_made", "the TLS authority has a key and no certificate"),
    ("tls.authority_made", "the TLS authority is whole"),
    ("tls.server_key_made", "the server's new key lies beside the old certificate"),
    ("tls.server_chain_made", "the server's new certificate is there, its names are not noted"),
    ("tls.server_names_made", "the server's certificate is whole"),
    ("init.begun", "it is noted that a fleet is being made, nothing of it is there"),
    ("init.store_made", "the store is there, no API token"),
    ("init.token_stored", "the first API token is stored as a hash, its file is not there"),
    ("init.token_file_made", "all is made, the note that it is being made is still there"),
    ("init.finished", "the fleet is made, nobody is told"),
    ("store.before_open", "the database is about to be opened, recovered or made"),
    ("store.opened", "the database is recovered, its identity is not checked"),
    ("store.identity_made", "a new database knows its format and fleet"),
    ("store.before_write", "a batch is complete and nothing of it written"),
    ("store.written", "a batch is durable and nobody told"),
    ("store.acknowledged", "a batch is durable and its owners are told"),
    ("store.registry_batched", "a change of the registry is in a batch that is not written"),
    ("store.evidence_batched", "evidence is in a batch that is not written"),
    ("store.evidence_pruned", "the oldest evidence is to go with a batch that is not written"),
    ("store.burial_batched", "a tombstone is in a batch that is not written"),
    ("removal.conflicts_gone", "some conflicts of a tree that ended are removed, others not"),
    (
        "removal.rows_gone",
        "the rows of a tree that ended are removed, their room is not given back",
    ),
    ("removal.before_finish", "nothing is left of a tree that ended, it is still noted as doomed"),
    ("store.before_stop", "the brain was told to stop and the store still takes commits"),
    ("store.stopped", "all is written, the process has yet to end"),
    ("mark.checked", "the database holds what it had acknowledged, the mark is the old one"),
    ("mark.before_write", "a new high-water mark is about to be written"),
    ("mark.written", "the new high-water mark is durable"),
    ("enrolment.before_commit", "a device's token is good, nothing is stored"),
    ("enrolment.stored", "a device and its use of the token are stored, it is not told"),
    ("api.enrolment_token_stored", "an enrolment token is stored, whoever asked is not told"),
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

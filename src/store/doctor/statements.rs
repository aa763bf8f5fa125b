//! The checks that are one statement: it returns only what is wrong, and says itself what that is
//! and what mends it, so that a person without this program can have it from psql as well.

macro_rules! statements {
    ($($(#[$about:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$about])* pub const $name: &str =
            include_str!(concat!("../../../sql/doctor/", $file, ".sql"));)*
    };
}

statements! {
    /// Version and role of the server.
    SERVER = "server";
    /// Outboxes in other schemas.
    TWICE = "twice";
    /// Indexes that an interrupted build has left.
    INDEXES = "indexes";
    /// Rights that a daemon does not need.
    RIGHTS = "rights";
    /// Settings with which a crash loses what was committed.
    DURABILITY = "durability";
    /// Transactions that are older than $1 seconds.
    TRANSACTIONS = "transactions";
    /// Replication slots that hold something back.
    SLOTS = "slots";
    /// Transactions that were prepared more than $1 seconds ago.
    PREPARED = "prepared";
    /// Whether the server runs autovacuum at all.
    AUTOVACUUM = "autovacuum";
    /// Leases that expired more than $1 seconds ago.
    LEASES = "leases";
    /// Events that are never due.
    UNDELIVERABLE = "undeliverable";
    /// Events that the daemons cannot read.
    UNREADABLE = "unreadable";
    /// Triggers and rules of other programs.
    TRIGGERS = "triggers";
    /// Foreign keys that keep done events.
    FOREIGN_KEYS = "foreign_keys";
}

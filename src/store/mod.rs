//! The database: the only place that opens connections or names `postgres`.

pub mod dsn;

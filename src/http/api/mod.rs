//! The API and the answers of every path: what a request means, which requests may ask, and what
//! each is answered.

pub(super) mod access;
pub(super) mod body;
pub(super) mod calls;
pub(super) mod endpoints;
pub(super) mod exchange;
pub(super) mod query;
pub(super) mod route;
pub(super) mod token;

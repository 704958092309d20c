//! The master as a client of storage nodes. Only the plain calls and probes need it: the data path
//! never goes through the master.

pub(crate) mod chunk_client;
pub(crate) mod probe;

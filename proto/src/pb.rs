//! The generated messages and services. Nothing is written by hand here.
#![allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated code; which of these it trips over depends on the generator's version"
)]

tonic::include_proto!("cairn.v1");

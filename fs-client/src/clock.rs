//! The wall clock, in the form that travels.

use std::time::SystemTime;

use cairn_proto::Timestamp;

/// This moment; 1970 on a machine whose clock is older.
pub fn now() -> Timestamp {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(d) => Timestamp {
            seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            nanos: d.subsec_nanos(),
        },
        Err(_) => Timestamp::default(),
    }
}

//! The rows of the master's tables: keys, values, typed access.

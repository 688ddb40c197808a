//! impl fuser::Filesystem: convert, call, reply; no decisions.

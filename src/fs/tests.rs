//! Tests of the filesystem.

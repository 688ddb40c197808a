//! Copies that are hard links on the server, and files of their own in the mount.
#![cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the copies that use it follow")
)]

mod groups;
mod journal;

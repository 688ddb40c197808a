//! What is remembered of the server. Nothing here asks it; time is an argument.

mod attrs;
mod blocks;

pub(crate) use attrs::{Attr, AttrCache, Ino, Stamp};
pub(crate) use blocks::{Block, Blocks};

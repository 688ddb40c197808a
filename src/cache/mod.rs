//! What is remembered of the server. Nothing here asks it; time is an argument.

mod attrs;
mod blocks;
mod dirs;
mod trust;

pub(crate) use attrs::{Attr, AttrCache, Ino, Stamp};
pub(crate) use blocks::{Block, Blocks};
pub(crate) use dirs::{DirCache, Directory, Fetch, LISTING_MAX, Listed, Said};
pub(crate) use trust::{Sighting, Trust};

//! What the files are: inodes, handles, reading, writing, names. No word of FUSE.

mod config;

pub use config::{Config, CopyIsHardlink, IdMap, Symlinks};

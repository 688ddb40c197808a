//! SFTP operations as typed calls. Never caches.

/// How the server is talked to.
#[derive(Debug, Clone)]
pub struct Config {
    /// Connections at most (`-o max_conns=N`), opened when used.
    pub connections_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { connections_max: 1 }
    }
}

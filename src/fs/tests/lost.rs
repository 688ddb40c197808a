//! A connection that is lost while files are open.

use super::*;
use crate::testing::Cut;

/// As `mount`, with a client that connects anew. Nothing is believed for long.
async fn mount_again(files: &[(&str, &[u8])]) -> (Server, Arc<Filesystem>) {
    let server = Server::new(Options::default());
    server.tree(|tree| {
        for (name, data) in files {
            tree.put(name.as_bytes(), data);
        }
    });
    let again = server.clone();
    let client = Client::over_again(move || again.link(), Vec::new(), u64::MAX);
    let config = Config {
        attr_timeout: Duration::ZERO,
        entry_timeout: Duration::ZERO,
        ..Config::default()
    };
    let fs = Filesystem::new(client.await.unwrap(), b"", config).await;
    (server, fs.unwrap())
}

#[tokio::test(start_paused = true)]
async fn all_that_have_a_file_open_read_on_when_its_name_goes_after_losses() {
    let (server, fs) = mount_again(&[("f", b"data")]).await;
    let (one, other) = (open(&fs, "f", READ).await, open(&fs, "f", READ).await);
    server.hang_up();
    idle().await;
    // Once more, when one of them is open again.
    let mut opens = 0;
    server.cut_when(move |request| {
        opens += u32::from(matches!(request, Request::Open { .. }));
        (opens == 2).then(|| {
            opens += 1;
            Cut::Before
        })
    });
    fs.unlink(Ino::ROOT, b"f").await.unwrap();
    for fh in [one, other] {
        assert_eq!(&fs.read(fh, 0, 4).await.unwrap()[..], b"data");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_copied_into_is_the_same_file_after_a_loss() {
    let (server, fs) = mount_again(&[("f", b"data"), ("g", b"")]).await;
    let (from, to) = (open(&fs, "f", READ).await, open(&fs, "g", WRITE).await);
    server.tree(|tree| tree.now += 60);
    assert_eq!(fs.copy_range((from, 0), (to, 0), 4).await, Ok(4));
    server.hang_up();
    idle().await;
    assert_eq!(&fs.read(to, 0, 9).await.unwrap()[..], b"data");
}

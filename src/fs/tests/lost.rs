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
async fn who_looks_at_what_replaced_an_open_file_does_not_make_it_that_file() {
    let (server, fs) = mount_again(&[("f", b"what was open")]).await;
    let fh = open(&fs, "f", READ).await;
    assert_eq!(&fs.read(fh, 0, 4).await.unwrap()[..], b"what");
    server.hang_up();
    server.tree(|tree| {
        tree.unlink(b"f").unwrap();
        tree.put(b"f", b"another's, and longer");
    });
    let ino = look_up(&fs, "f").await;
    let size = fs.getattr(ino).await.unwrap().attr.size;
    assert_eq!(size, 21);
    assert_eq!(fs.read(fh, 0, 4).await, refused(Errno::ESTALE));
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

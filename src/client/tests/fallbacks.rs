//! What stands in for an extension that a server lacks, and in which order SYMLINK goes.

use bytes::Bytes;
use nix::errno::Errno;

use super::{client_of, text, without};
use crate::client::Client;
use crate::error::Error;
use crate::sftp::{Attrs, OpenFlags, Request, StatusCode};
use crate::testing::{Options, Server, status};

const POSIX_RENAME: &str = "posix-rename@openssh.com";

fn content(server: &Server, path: &str) -> Option<Bytes> {
    server.tree(|tree| tree.content(path.as_bytes()))
}

/// All names in the login directory.
fn names(server: &Server) -> Vec<Bytes> {
    let all = server.tree(|tree| tree.list(tree.find(b".", true).unwrap()).unwrap());
    all.into_iter()
        .filter(|name| !matches!(&name[..], b"." | b".."))
        .collect()
}

#[tokio::test]
async fn rename_replaces_in_one_request_where_the_server_can() {
    let (server, client) = without(&[]).await;
    server.tree(|tree| [tree.put(b"a", b"new"), tree.put(b"b", b"old")]);
    client.rename(text("a"), text("b")).await.unwrap();
    assert_eq!(content(&server, "b"), Some(text("new")));
    assert_eq!(server.take_requests().len(), 1);
}

#[tokio::test]
async fn rename_replaces_a_file_also_without_posix_rename() {
    let (server, client) = without(&[POSIX_RENAME]).await;
    server.tree(|tree| [tree.put(b"a", b"new"), tree.put(b"b", b"old")]);
    client.rename(text("a"), text("b")).await.unwrap();
    assert_eq!(content(&server, "b"), Some(text("new")));
    assert_eq!(names(&server), ["b"]);
}

#[tokio::test]
async fn rename_without_posix_rename_and_with_nothing_there_is_one_request() {
    let (server, client) = without(&[POSIX_RENAME]).await;
    server.tree(|tree| tree.put(b"a", b"new"));
    client.rename(text("a"), text("b")).await.unwrap();
    assert_eq!(server.take_requests().len(), 1);
    let error = client.rename(text("missing"), text("b")).await.unwrap_err();
    assert!(error.is_refused_with(StatusCode::NO_SUCH_FILE), "{error:?}");
    assert_eq!(content(&server, "b"), Some(text("new")));
}

#[tokio::test]
async fn a_rename_that_fails_at_its_second_step_brings_back_what_was_there() {
    let (server, client) = without(&[POSIX_RENAME]).await;
    server.tree(|tree| [tree.put(b"a", b"new"), tree.put(b"b", b"old")]);
    server.intercept(|request| match request {
        Request::Rename { from, to } if from == "a" && to == "b" => {
            Some(status(StatusCode::FAILURE))
        }
        _ => None,
    });
    let error = client.rename(text("a"), text("b")).await.unwrap_err();
    assert!(error.is_refused_with(StatusCode::FAILURE), "{error:?}");
    assert_eq!(
        [content(&server, "a"), content(&server, "b")],
        [Some(text("new")), Some(text("old"))]
    );
    assert_eq!(names(&server), ["a", "b"]);
}

#[tokio::test]
async fn a_directory_replaces_an_empty_one_without_posix_rename() {
    let (server, client) = without(&[POSIX_RENAME]).await;
    server.tree(|tree| {
        tree.mkdir(b"a", 0o755).unwrap();
        tree.put(b"a/f", b"");
        tree.mkdir(b"b", 0o755).unwrap();
    });
    client.rename(text("a"), text("b")).await.unwrap();
    assert_eq!(content(&server, "b/f"), Some(Bytes::new()));
    assert_eq!(names(&server), ["b"]);
}

#[tokio::test]
async fn an_empty_directory_that_could_not_be_replaced_is_there_again() {
    let (server, client) = without(&[POSIX_RENAME]).await;
    let there = |server: &Server| server.tree(|tree| tree.attrs(tree.find(b"a/b", false).unwrap()));
    server.tree(|tree| {
        tree.mkdir(b"a", 0o755).unwrap();
        tree.mkdir(b"a/b", 0o700).unwrap();
        tree.mkdir(b"c", 0o755).unwrap();
        let ino = tree.find(b"a/b", false).unwrap();
        tree.chown(ino, (1000, 1000)).unwrap();
    });
    let before = there(&server);
    let into_itself = client.rename(text("a"), text("a/b")).await;
    assert_eq!(into_itself, Err(Error::Errno(Errno::EINVAL)));
    server.intercept(|request| match request {
        Request::Rename { .. } => Some(status(StatusCode::FAILURE)),
        _ => None,
    });
    assert!(client.rename(text("c"), text("a/b")).await.is_err());
    assert_eq!(there(&server), before);
}

#[tokio::test]
async fn a_directory_with_something_in_it_is_never_replaced_nor_moved_aside() {
    let (server, client) = without(&[POSIX_RENAME]).await;
    server.tree(|tree| {
        tree.mkdir(b"a", 0o755).unwrap();
        tree.mkdir(b"b", 0o755).unwrap();
        tree.put(b"b/f", b"kept");
        tree.put(b"file", b"kept");
    });
    for (from, to) in [("a", "b"), ("file", "b"), ("a", "file")] {
        assert!(
            client.rename(text(from), text(to)).await.is_err(),
            "{from} to {to}"
        );
        assert_eq!(content(&server, "b/f"), Some(text("kept")));
        assert_eq!(content(&server, "file"), Some(text("kept")));
        assert_eq!(names(&server), ["a", "b", "file"], "{from} to {to}");
    }
}

#[tokio::test]
async fn without_their_extension_hard_links_and_changes_of_links_are_refused_unasked() {
    let (server, client) = without(&["hardlink@openssh.com", "lsetstat@openssh.com"]).await;
    let linked = client.hardlink(text("a"), text("b")).await;
    assert_eq!(linked, Err(Error::Errno(Errno::EPERM)));
    let changed = client.lsetstat(text("a"), Attrs::default()).await;
    assert_eq!(changed, Err(Error::Errno(Errno::EOPNOTSUPP)));
    assert_eq!(server.take_requests(), []);
}

#[tokio::test]
async fn without_their_extension_fsync_and_statvfs_say_what_little_they_know() {
    let (server, client) = without(&["fsync@openssh.com", "statvfs@openssh.com"]).await;
    server.tree(|tree| tree.put(b"f", b""));
    let handle = client
        .open(text("f"), OpenFlags::READ, Attrs::default())
        .await
        .unwrap();
    server.take_requests();
    assert_eq!(client.fsync(&handle).await, Ok(()));
    assert_eq!(client.statvfs(text(".")).await, Ok(None));
    assert_eq!(server.take_requests(), []);
}

#[tokio::test]
async fn a_tilde_is_expanded_where_the_server_can_and_else_is_a_name() {
    let (_server, client) = without(&[]).await;
    assert_eq!(client.resolve(text("~/x")).await, Ok(text("/home/ann/x")));
    let (server, client) = without(&["expand-path@openssh.com"]).await;
    assert_eq!(client.resolve(text("~x")).await, Ok(text("/home/ann/~x")));
    assert_eq!(client.resolve(Bytes::new()).await, Ok(text("/home/ann")));
    let asked = server.take_requests();
    assert!(
        asked
            .iter()
            .all(|request| matches!(request, Request::Realpath { .. })),
        "{asked:?}"
    );
}

async fn draft(extensions: &[(&'static str, &'static str)]) -> (Server, Client) {
    let mut options = Options {
        symlink_has_link_first: true,
        ..Options::default()
    };
    options.extensions.extend(
        extensions
            .iter()
            .map(|(name, data)| (text(name), text(data))),
    );
    let server = Server::new(options);
    let client = client_of(&server).await;
    server.take_requests();
    (server, client)
}

async fn assert_links(server: &Server, client: &Client, link: &'static str, requests: usize) {
    let seen = client
        .symlink(text("else/where"), text(link))
        .await
        .unwrap();
    assert_eq!(seen.unwrap().size, Some(10));
    assert_eq!(server.take_requests().len(), requests, "{link}");
    let said = server.tree(|tree| tree.readlink(link.as_bytes()));
    assert_eq!(said, Ok(text("else/where")));
}

#[tokio::test]
async fn a_symbolic_link_on_openssh_takes_one_round_trip() {
    let (server, client) = without(&[]).await;
    assert_links(&server, &client, "one", 2).await;
    assert_links(&server, &client, "two", 2).await;
}

#[tokio::test]
async fn the_drafts_order_of_symlinks_arguments_is_found_out_once_and_its_wrong_link_undone() {
    let (server, client) = draft(&[]).await;
    server.tree(|tree| tree.mkdir(b"else", 0o755)).unwrap();
    // SYMLINK, LSTAT; READLINK, REMOVE; SYMLINK, LSTAT.
    assert_links(&server, &client, "one", 6).await;
    assert_links(&server, &client, "two", 2).await;
    assert_eq!(names(&server), ["else", "one", "two"]);
    assert!(server.tree(|tree| tree.find(b"else/where", false)).is_err());
}

#[tokio::test]
async fn the_drafts_order_is_found_out_also_where_the_target_exists() {
    let (server, client) = draft(&[]).await;
    server.tree(|tree| tree.put(b"target", b"kept"));
    let made = client.symlink(text("target"), text("link"));
    made.await.unwrap().unwrap();
    assert_eq!(content(&server, "target"), Some(text("kept")));
    assert_eq!(
        server.tree(|tree| tree.readlink(b"link")),
        Ok(text("target"))
    );
    assert_eq!(names(&server), ["link", "target"]);
}

#[tokio::test]
async fn a_refused_link_on_openssh_makes_no_other() {
    let (server, client) = without(&[]).await;
    server.tree(|tree| [tree.put(b"target", b""), tree.put(b"link", b"")]);
    let error = client
        .symlink(text("target"), text("link"))
        .await
        .unwrap_err();
    assert!(error.is_refused_with(StatusCode::FAILURE), "{error:?}");
    let error = client
        .symlink(text("target"), text("no/where"))
        .await
        .unwrap_err();
    assert!(error.is_refused_with(StatusCode::NO_SUCH_FILE), "{error:?}");
    assert_eq!(names(&server), ["link", "target"]);
}

#[tokio::test]
async fn a_server_that_says_its_symlink_order_is_believed() {
    let order = [("symlink-order@rjk.greenend.org.uk", "linkpath-targetpath")];
    let (server, client) = draft(&order).await;
    assert_links(&server, &client, "one", 2).await;
}

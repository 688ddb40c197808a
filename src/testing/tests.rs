//! What the server in memory does beyond answering as OpenSSH does.

use bytes::Bytes;
use tokio::io::DuplexStream;

use super::{Options, Server, Talk, status};
use crate::client::Client;
use crate::sftp::{
    Attrs, Extensions, LongName, NameEntry, OpenFlags, Request, RequestId, Response, StatusCode,
    Statvfs,
};

const WRITE: OpenFlags = OpenFlags(OpenFlags::WRITE.0 | OpenFlags::CREAT.0);

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn talk(server: &Server) -> Talk<DuplexStream> {
    Talk::begin(server.connect()).await.0
}

async fn open(talk: &mut Talk<DuplexStream>, path: &'static str, flags: OpenFlags) -> Bytes {
    let request = Request::Open {
        path: text(path),
        flags,
        attrs: Attrs::default(),
    };
    let Response::Handle(handle) = talk.ask(&request).await else {
        panic!("no handle")
    };
    handle
}

async fn space(talk: &mut Talk<DuplexStream>, path: &'static str) -> Statvfs {
    let answer = talk.ask(&Request::Statvfs { path: text(path) }).await;
    let Response::Extended(body) = answer else {
        panic!("{answer:?}")
    };
    Statvfs::decode(body).unwrap()
}

#[tokio::test]
async fn a_handle_survives_the_end_and_the_renaming_of_its_name() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.put(b"f", b"content"));
    let mut talk = talk(&server).await;
    let handle = open(&mut talk, "f", OpenFlags::READ).await;
    let read = Request::Read {
        handle: handle.clone(),
        offset: 0,
        len: 100,
    };
    server.tree(|tree| tree.rename(b"f", b"g")).unwrap();
    assert_eq!(talk.ask(&read).await, Response::Data(text("content")));
    server.tree(|tree| tree.unlink(b"g")).unwrap();
    assert_eq!(talk.ask(&read).await, Response::Data(text("content")));
    let all = server.tree(|tree| tree.count());
    talk.ask(&Request::Close { handle }).await;
    assert_eq!(
        server.tree(|tree| tree.count()),
        all - 1,
        "closing ends an unlinked file"
    );
}

#[tokio::test]
async fn the_handles_of_a_lost_connection_are_closed() {
    let server = Server::new(Options::default());
    let mut talk = talk(&server).await;
    open(&mut talk, "f", WRITE).await;
    server.tree(|tree| tree.unlink(b"f")).unwrap();
    let all = server.tree(|tree| tree.count());
    server.hang_up();
    assert_eq!(talk.hear().await, None);
    assert_eq!(server.tree(|tree| tree.count()), all - 1);
    assert!(matches!(
        Talk::begin(server.connect()).await.1,
        Response::Version { .. }
    ));
}

#[tokio::test]
async fn a_directory_is_listed_in_pages_of_a_hundred_with_link_counts() {
    let server = Server::new(Options::default());
    server.tree(|tree| {
        for n in 0..249 {
            tree.put(format!("{n}").as_bytes(), b"");
        }
        tree.link(b"7", b"linked").unwrap();
    });
    let mut talk = talk(&server).await;
    let opened = talk.ask(&Request::Opendir { path: text(".") }).await;
    let Response::Handle(handle) = opened else {
        panic!("{opened:?}")
    };
    let (mut pages, mut all) = (Vec::new(), Vec::new());
    let readdir = Request::Readdir { handle };
    while let Response::Names(names) = talk.ask(&readdir).await {
        pages.push(names.len());
        all.extend(names);
    }
    assert_eq!(pages, [100, 100, 52]);
    let links = |name: &str| {
        let entry: &NameEntry = all.iter().find(|entry| entry.name == name).unwrap();
        LongName::parse(&entry.longname).unwrap().links
    };
    assert_eq!(
        (links("7"), links("linked"), links("8"), links(".")),
        (2, 2, 1, 2)
    );
}

#[tokio::test]
async fn a_read_gives_no_more_than_the_limit() {
    let server = Server::new(Options {
        read_max: 10,
        ..Options::default()
    });
    server.tree(|tree| tree.put(b"f", &[7; 25]));
    let mut talk = talk(&server).await;
    let handle = open(&mut talk, "f", OpenFlags::READ).await;
    for (offset, expected) in [(0, 10), (10, 10), (20, 5)] {
        let answer = talk
            .ask(&Request::Read {
                handle: handle.clone(),
                offset,
                len: 100,
            })
            .await;
        assert_eq!(answer, Response::Data(vec![7; expected].into()));
    }
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_the_connection() {
    let server = Server::new(Options {
        packet_max: 1000,
        ..Options::default()
    });
    let mut talk = talk(&server).await;
    let data = Bytes::from(vec![0; 1000]);
    talk.say(
        &Request::Write {
            handle: text("h"),
            offset: 0,
            data,
        },
        RequestId(1),
    )
    .await;
    assert_eq!(talk.hear().await, None);
}

#[tokio::test]
async fn a_full_filesystem_takes_what_fits_and_says_failure() {
    let server = Server::new(Options::default());
    server.tree(|tree| tree.quota = Some(8192));
    let mut talk = talk(&server).await;
    let handle = open(&mut talk, "f", WRITE).await;
    let write = |offset, data| Request::Write {
        handle: handle.clone(),
        offset,
        data,
    };
    assert_eq!(space(&mut talk, ".").await.bavail, 2);
    assert_eq!(
        talk.ask(&write(0, vec![1; 8000].into())).await,
        status(StatusCode::OK)
    );
    assert_eq!(
        talk.ask(&write(8000, vec![2; 8000].into())).await,
        status(StatusCode::FAILURE)
    );
    assert_eq!(
        talk.ask(&write(8192, text("x"))).await,
        status(StatusCode::FAILURE)
    );
    assert_eq!(
        talk.ask(&write(0, text("x"))).await,
        status(StatusCode::OK),
        "no new bytes"
    );
    assert_eq!(server.tree(|tree| tree.content(b"f")).unwrap().len(), 8192);
    assert_eq!(space(&mut talk, ".").await.bavail, 0);
}

#[tokio::test]
async fn another_filesystem_and_a_read_only_one_show_in_statvfs() {
    let server = Server::new(Options::default());
    server.tree(|tree| {
        tree.put(b"f", b"");
        tree.mount(b"other").unwrap();
    });
    let mut talk = talk(&server).await;
    let (from, to) = (text("f"), text("other/f"));
    let link = Request::Hardlink {
        from: from.clone(),
        to: to.clone(),
    };
    assert_eq!(talk.ask(&link).await, status(StatusCode::FAILURE));
    assert_eq!(
        talk.ask(&Request::PosixRename { from, to }).await,
        status(StatusCode::FAILURE)
    );
    assert_ne!(
        space(&mut talk, ".").await.fsid,
        space(&mut talk, "other").await.fsid
    );
    server.tree(|tree| tree.read_only = true);
    assert_eq!(space(&mut talk, ".").await.flag, Statvfs::FLAG_RDONLY);
    let remove = Request::Remove { path: text("f") };
    assert_eq!(talk.ask(&remove).await, status(StatusCode::FAILURE));
}

#[tokio::test]
async fn a_user_who_is_not_root_is_held_to_permissions() {
    let server = Server::new(Options::default());
    server.tree(|tree| {
        tree.put(b"secret", b"");
        let secret = tree.find(b"secret", true).unwrap();
        tree.chmod(secret, 0o600).unwrap();
        tree.user = (1000, 1000);
    });
    let mut talk = talk(&server).await;
    let denied = status(StatusCode::PERMISSION_DENIED);
    for request in [
        Request::Open {
            path: text("secret"),
            flags: OpenFlags::READ,
            attrs: Attrs::default(),
        },
        Request::Mkdir {
            path: text("d"),
            attrs: Attrs::default(),
        },
        Request::Remove {
            path: text("secret"),
        },
        Request::Setstat {
            path: text("secret"),
            attrs: Attrs {
                permissions: Some(0o777),
                ..Attrs::default()
            },
        },
    ] {
        assert_eq!(talk.ask(&request).await, denied, "{request:?}");
    }
}

#[tokio::test]
async fn an_older_server_lacks_extensions() {
    let server = Server::new(Options::default().without(&["fsync@openssh.com", "copy-data"]));
    let (mut talk, version) = Talk::begin(server.connect()).await;
    let Response::Version { extensions, .. } = version else {
        panic!("{version:?}")
    };
    let has = Extensions::from_version(&extensions);
    assert!(has.hardlink && !has.fsync && !has.copy_data);
    let answer = talk.ask(&Request::Fsync { handle: text("h") }).await;
    assert_eq!(answer, status(StatusCode::OP_UNSUPPORTED));
}

#[tokio::test]
async fn symlink_takes_its_arguments_in_the_order_of_the_draft_if_asked() {
    let server = Server::new(Options {
        symlink_has_link_first: true,
        ..Options::default()
    });
    let mut talk = talk(&server).await;
    talk.ask(&Request::Symlink {
        first: text("link"),
        second: text("target"),
    })
    .await;
    assert_eq!(
        server.tree(|tree| tree.readlink(b"link")),
        Ok(text("target"))
    );
}

#[tokio::test]
async fn answers_may_come_in_another_order() {
    let server = Server::new(Options {
        shuffle: Some(7),
        ..Options::default()
    });
    let mut talk = talk(&server).await;
    for id in 1..=20 {
        talk.say(&Request::Stat { path: text(".") }, RequestId(id))
            .await;
    }
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(talk.hear().await.unwrap().0.0);
    }
    assert!(!ids.is_sorted(), "{ids:?}");
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_test_sees_all_requests_and_may_answer_them() {
    let server = Server::new(Options::default());
    let mut talk = talk(&server).await;
    server.take_requests();
    let stat = Request::Stat { path: text(".") };
    server.intercept(|request| {
        matches!(request, Request::Stat { .. }).then(|| status(StatusCode::NO_CONNECTION))
    });
    assert_eq!(talk.ask(&stat).await, status(StatusCode::NO_CONNECTION));
    let lstat = Request::Lstat { path: text(".") };
    assert!(matches!(talk.ask(&lstat).await, Response::Attrs(_)));
    assert_eq!(server.take_requests(), [stat, lstat]);
}

#[tokio::test]
async fn time_stands_still_until_a_test_moves_it() {
    let server = Server::new(Options::default());
    let modified =
        || server.tree(|tree| tree.attrs(tree.find(b"f", true).unwrap()).times.unwrap().1);
    server.tree(|tree| tree.put(b"f", b"1"));
    let first = modified();
    server.tree(|tree| tree.put(b"f", b"2"));
    assert_eq!(modified(), first);
    server.tree(|tree| {
        tree.now += 5;
        tree.put(b"f", b"3");
    });
    assert_eq!(modified(), first + 5);
}

#[tokio::test]
async fn the_client_talks_to_it() {
    let server = Server::new(Options::default().without(&["copy-data"]));
    let client = Client::over(server.link()).await.unwrap();
    let has = &client.features().extensions;
    assert!(has.limits && !has.copy_data);
}

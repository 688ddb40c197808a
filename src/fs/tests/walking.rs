//! Listings that are remembered, and what is fetched ahead of programs that walk through a tree.

use super::*;

/// All names of a directory, with their attributes asked for, as the kernel reads them; nothing of
/// what was told is kept.
async fn list(fs: &Filesystem, ino: Ino) -> Vec<String> {
    let fh = fs.opendir(ino).await.unwrap();
    let names = list_from(fs, fh, 2).await;
    fs.releasedir(fh);
    names.into_iter().map(|(name, _)| name).collect()
}

/// Names from a place on, each with the place behind it.
async fn list_from(fs: &Filesystem, fh: Fh, mut offset: u64) -> Vec<(String, u64)> {
    let mut names = Vec::new();
    loop {
        let before = offset;
        let mut told = Vec::new();
        let take = |entry: &crate::fs::DirEntry<'_>| {
            offset = entry.next;
            told.extend(entry.known.map(|_| entry.ino));
            names.push((String::from_utf8(entry.name.to_vec()).unwrap(), offset));
            false
        };
        fs.readdir(fh, before, true, take).await.unwrap();
        told.into_iter().for_each(|ino| fs.forget(ino, 1));
        if offset == before {
            return names;
        }
    }
}

#[tokio::test]
async fn a_linked_name_that_was_replaced_on_the_server_stays_in_a_remembered_listing() {
    let (server, fs) = mount(&[("a", b"one")]).await;
    let ino = look_up(&fs, "a").await;
    fs.link(ino, Ino::ROOT, b"b").await.unwrap();
    assert_eq!(list(&fs, Ino::ROOT).await, ["a", "b"]);
    server.tree(|tree| {
        tree.put(b"new", b"replaced");
        tree.rename(b"new", b"b").unwrap();
    });
    // As one does whose time for the name is over.
    fs.tables().attrs.set_named(ino, None);
    let replaced = look_up(&fs, "b").await;
    assert_ne!(replaced, ino);
    fs.forget(replaced, 1);
    assert_eq!(look_up(&fs, "b").await, replaced);
    assert_eq!(list(&fs, Ino::ROOT).await, ["a", "b"]);
}

#[tokio::test]
async fn a_remembered_listing_has_the_servers_order_and_goes_on_where_it_was_left_also_far_back() {
    let (server, fs) = mount(&[]).await;
    server.tree(|tree| (0..2000).for_each(|n| tree.put(format!("{n:04}").as_bytes(), b"")));
    // In another order than that of the names.
    let mut pages: Vec<Vec<NameEntry>> = Vec::new();
    let names: Vec<String> = (0..2000).rev().map(|n| format!("{n:04}")).collect();
    for page in names.chunks(100) {
        let page = page.iter().map(|name| {
            let attrs = server.tree(|tree| {
                let ino = tree.find(name.as_bytes(), false).unwrap();
                tree.attrs(ino)
            });
            NameEntry {
                name: Bytes::copy_from_slice(name.as_bytes()),
                longname: Bytes::new(),
                attrs,
            }
        });
        pages.push(page.collect());
    }
    let mut at = 0;
    server.intercept(move |request| match request {
        Request::Opendir { .. } => {
            at = 0;
            None
        }
        Request::Readdir { .. } => {
            at += 1;
            Some(match pages.get(at - 1) {
                Some(page) => Response::Names(page.clone()),
                None => status(StatusCode::EOF),
            })
        }
        _ => None,
    });
    assert_eq!(list(&fs, Ino::ROOT).await.len(), 2000);
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    let all = list_from(&fs, fh, 2).await;
    let told = all.iter().map(|(name, _)| name);
    assert!(told.eq(&names), "in the server's order");
    assert_eq!(list_from(&fs, fh, 102).await, all[100..]);
}

fn mkdirs(server: &Server, names: &[&str]) {
    server.tree(|tree| {
        for name in names {
            tree.mkdir(name.as_bytes(), 0o755).unwrap();
        }
    });
}

#[tokio::test]
async fn a_file_made_where_a_directory_was_keeps_its_name_while_somebody_walks() {
    let (server, fs) = mount(&[]).await;
    let names: Vec<String> = (0..40).map(|n| format!("d/{n:02}")).collect();
    let mut all = vec!["d"];
    all.extend(names.iter().map(String::as_str));
    mkdirs(&server, &all);
    // A walk: the directories below are queued, and the first of them listed.
    list(&fs, Ino::ROOT).await;
    let dir = look_up(&fs, "d").await;
    list(&fs, dir).await;
    fs.rmdir(dir, b"39").await.unwrap();
    let how = crate::fs::Creation::EXCLUSIVE;
    let made = fs.create(dir, b"39", 0o644, WRITE, how, USER).await;
    let (entry, opened) = made.unwrap();
    // The walk goes on.
    for name in &names[..38] {
        let ino = fs.lookup(dir, &name.as_bytes()[2..]).await.unwrap().ino;
        list(&fs, ino).await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(fs.tables().inodes.find(dir, b"39"), Some(entry.ino));
    fs.release(opened.fh);
}

#[tokio::test]
async fn a_directory_made_where_a_file_was_keeps_its_name_while_somebody_walks() {
    let (server, fs) = mount(&[]).await;
    mkdirs(&server, &["d"]);
    let names: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
    server.tree(|tree| {
        for name in &names {
            tree.put(format!("d/{name}").as_bytes(), b"data");
        }
    });
    let dir = look_up(&fs, "d").await;
    list(&fs, dir).await;
    // Somebody else makes it a directory, and a program looks at it.
    server.tree(|tree| {
        tree.unlink(b"d/39").unwrap();
        tree.mkdir(b"d/39", 0o755).unwrap();
    });
    let asked = fs.now();
    let attrs = fs
        .client
        .lstat(Bytes::from_static(b"/home/ann/d/39"))
        .await
        .unwrap();
    let entry = fs.enter(dir, b"39", &attrs, asked).unwrap();
    for name in &names[..20] {
        let ino = fs.lookup(dir, name.as_bytes()).await.unwrap().ino;
        let fh = fs.open(ino, READ, false).await.unwrap().fh;
        fs.release(fh);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(fs.tables().inodes.find(dir, b"39"), Some(entry.ino));
}

#[tokio::test]
async fn the_second_walk_through_a_tree_is_fetched_ahead_too() {
    let (server, fs) = mount(&[]).await;
    mkdirs(&server, &["d"]);
    let names: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
    server.tree(|tree| {
        for name in &names {
            tree.put(format!("d/{name}").as_bytes(), b"data");
        }
    });
    let dir = look_up(&fs, "d").await;
    let mut used = Vec::new();
    for walk in 0..2 {
        let later = crate::clock::now() + Duration::from_secs(60 * walk);
        {
            let mut tables = fs.tables();
            let tables = &mut *tables;
            let (inodes, dirs) = (&mut tables.inodes, &mut tables.dirs);
            tables.walk.visited(dir, false, inodes, dirs, later);
        }
        list(&fs, dir).await;
        for name in &names {
            let ino = fs.lookup(dir, name.as_bytes()).await.unwrap().ino;
            let fh = fs.open(ino, READ, false).await.unwrap().fh;
            assert_eq!(fs.read(fh, 0, 100).await.unwrap(), "data");
            fs.release(fh);
            fs.forget(ino, 1);
        }
        used.push(fs.tables().walk.tally.files_used);
    }
    assert!(used[0] > 30 && used[1] > 60, "{used:?}");
}

/// One page of a listing is here; what it tells of is another file when it is handed on.
#[tokio::test]
async fn a_file_made_where_a_directory_was_keeps_its_name_while_that_is_listed() {
    let (server, fs) = mount(&[("a", b"")]).await;
    mkdirs(&server, &["x"]);
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    let mut next = 2;
    let first = |entry: &crate::fs::DirEntry<'_>| {
        let is_first = next == 2;
        if is_first {
            next = entry.next;
        }
        !is_first
    };
    fs.readdir(fh, 2, true, first).await.unwrap();
    assert_eq!(next, 3);
    look_up(&fs, "x").await;
    fs.rmdir(Ino::ROOT, b"x").await.unwrap();
    let how = crate::fs::Creation::EXCLUSIVE;
    let made = fs.create(Ino::ROOT, b"x", 0o644, WRITE, how, USER).await;
    let (entry, opened) = made.unwrap();
    list_from(&fs, fh, next).await;
    assert_eq!(fs.tables().inodes.find(Ino::ROOT, b"x"), Some(entry.ino));
    fs.release(opened.fh);
}

#[tokio::test]
async fn who_keeps_many_files_open_has_few_of_them_held_in_memory() {
    const SIZE: usize = 200 << 10;
    let (server, fs) = mount(&[]).await;
    mkdirs(&server, &["d"]);
    let names: Vec<String> = (0..120).map(|n| format!("{n:03}")).collect();
    server.tree(|tree| {
        for name in &names {
            tree.put(format!("d/{name}").as_bytes(), &vec![b'x'; SIZE]);
        }
    });
    let dir = look_up(&fs, "d").await;
    list(&fs, dir).await;
    server.take_requests();
    let mut open = Vec::new();
    for name in &names {
        let ino = fs.lookup(dir, name.as_bytes()).await.unwrap().ino;
        open.push(fs.open(ino, READ, false).await.unwrap().fh);
    }
    let files = open.iter().map(|fh| fs.handles.file(*fh).unwrap());
    let held = files.filter(|file| file.fetched(&(0..1)).is_some()).count();
    // 16 MiB of them.
    assert!((20..=81).contains(&held), "{held}");
    for fh in open {
        let read = fs.read(fh, SIZE as u64 - 10, 20).await.unwrap();
        assert_eq!(read, "xxxxxxxxxx");
        fs.release(fh);
    }
}

#[tokio::test]
async fn who_removes_what_it_lists_asks_for_nothing_else() {
    let (server, fs) = mount(&[]).await;
    server.tree(|tree| (0..6000).for_each(|n| tree.put(format!("{n:04}").as_bytes(), b"")));
    let fh = fs.opendir(Ino::ROOT).await.unwrap();
    let (mut offset, mut count) = (2, 0);
    let mut asked = 0;
    loop {
        let (before, mut names) = (offset, Vec::new());
        let take = |entry: &crate::fs::DirEntry<'_>| {
            if names.len() == 100 {
                return true;
            }
            offset = entry.next;
            names.push((entry.known.map(|_| entry.ino), entry.name.to_vec()));
            false
        };
        server.take_requests();
        fs.readdir(fh, before, true, take).await.unwrap();
        let requests = server.take_requests().into_iter();
        asked += requests
            .filter(|request| matches!(request, Request::Lstat { .. }))
            .count();
        if offset == before {
            break;
        }
        count += names.len();
        for (told, name) in names {
            fs.unlink(Ino::ROOT, &name).await.unwrap();
            told.into_iter().for_each(|ino| fs.forget(ino, 1));
        }
    }
    assert_eq!((count, asked), (6000, 0));
}

#[tokio::test(start_paused = true)]
async fn who_keeps_a_file_open_that_others_replace_goes_on_reading_the_old_one() {
    let (server, fs) = mount(&[]).await;
    mkdirs(&server, &["d"]);
    server.tree(|tree| {
        for name in ["d/0", "d/1", "d/2", "d/3"] {
            tree.put(name.as_bytes(), b"old content");
        }
    });
    let dir = look_up(&fs, "d").await;
    list(&fs, dir).await;
    let mut open = Vec::new();
    for name in ["0", "1", "2", "3"] {
        let ino = fs.lookup(dir, name.as_bytes()).await.unwrap().ino;
        open.push((ino, fs.open(ino, READ, false).await.unwrap().fh));
        idle().await;
    }
    let (ino, fh) = open[3];
    assert!(fs.handles.file(fh).unwrap().fetched(&(0..1)).is_some());
    server.tree(|tree| {
        tree.put(b"d/new", b"new and longer content");
        tree.rename(b"d/new", b"d/3").unwrap();
    });
    let seen = fs.ask_attributes(ino).await.unwrap();
    assert_eq!(seen.attr.size, 11);
    assert_eq!(fs.read(fh, 4, 100).await.unwrap(), "content");
    // Another open sees the new file, and the old one stays what it is for who has it.
    fs.forget(ino, 1);
    let again = fs.open(ino, WRITE, false).await.unwrap().fh;
    assert_eq!(
        fs.read(again, 0, 100).await.unwrap(),
        "new and longer content"
    );
    assert_eq!(fs.read(fh, 4, 100).await.unwrap(), "content");
}

#[tokio::test]
async fn a_file_that_is_renamed_while_its_open_waits_is_not_taken_for_the_next_of_its_name() {
    use futures_util::FutureExt;
    let (_server, fs) = mount(&[("a", b"of a"), ("x", b"of x")]).await;
    let ino = look_up(&fs, "a").await;
    // Something is fetched ahead, and the program that opens the file waits for that.
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    let fetching = async move { drop(wait.await) }.boxed().shared();
    {
        let mut tables = fs.tables();
        tables.inodes.opened(ino);
        let (now, why) = (crate::clock::now(), crate::fs::walk::Why::Walk);
        let (len, number) = (4, u64::MAX);
        let fetch = crate::fs::walk::Fetch {
            ino,
            len,
            number,
            why,
        };
        let tables = &mut *tables;
        tables.walk.begin(fetch, fetching, &mut tables.inodes, now);
    }
    let renames = async {
        let root = Ino::ROOT;
        fs.rename((root, b"a"), (root, b"old"), false)
            .await
            .unwrap();
        fs.rename((root, b"x"), (root, b"a"), false).await.unwrap();
        done.send(()).unwrap();
    };
    let (opened, ()) = tokio::join!(fs.open(ino, READ, false), renames);
    let read = fs.read(opened.unwrap().fh, 0, 10).await.unwrap();
    assert_eq!(read, "of a");
}

/// `find` and then `rm -r`: what the first one was told is too old for the second.
#[tokio::test]
async fn a_walk_soon_after_another_one_is_listed_ahead_too() {
    let (server, fs) = mount(&[]).await;
    let names: Vec<String> = (0..10).map(|n| format!("d/{n}")).collect();
    let mut all = vec!["d"];
    all.extend(names.iter().map(String::as_str));
    mkdirs(&server, &all);
    let walked = |later: u64| {
        let now = crate::clock::now() + Duration::from_secs(later);
        let mut tables = fs.tables();
        let tables = &mut *tables;
        let (walk, attrs) = (&mut tables.walk, &tables.attrs);
        let (inodes, dirs) = (&mut tables.inodes, &mut tables.dirs);
        for ino in [Ino::ROOT, inodes.find(Ino::ROOT, b"d").unwrap()] {
            walk.visited(ino, false, inodes, dirs, now);
        }
        let jobs = walk.next(inodes, dirs, attrs, now).into_iter();
        jobs.filter(|job| matches!(job, crate::fs::walk::Job::List(_)))
            .count()
    };
    list(&fs, Ino::ROOT).await;
    let dir = look_up(&fs, "d").await;
    list(&fs, dir).await;
    for name in &names {
        let ino = fs.lookup(dir, &name.as_bytes()[2..]).await.unwrap().ino;
        list(&fs, ino).await;
    }
    assert_eq!(walked(0), 0, "all is there");
    assert_eq!(walked(6), 10);
}

#[tokio::test]
async fn who_goes_from_a_directory_into_one_below_at_once_has_the_others_listed_ahead() {
    let (server, fs) = mount(&[]).await;
    let names: Vec<String> = (0..10).map(|n| format!("tree/{n}")).collect();
    let mut all = vec!["tree"];
    all.extend(names.iter().map(String::as_str));
    mkdirs(&server, &all);
    // Nobody lists what `tree` is in.
    let tree = look_up(&fs, "tree").await;
    list(&fs, tree).await;
    server.take_requests();
    let first = fs.lookup(tree, b"0").await.unwrap().ino;
    list(&fs, first).await;
    let others =
        |request: &Request| matches!(request, Request::Opendir { path } if !path.ends_with(b"/0"));
    let asked = server.take_requests();
    assert_eq!(asked.iter().filter(|request| others(request)).count(), 9);
}

/// A walk that begins anew, through files that were opened in the same order before.
#[tokio::test]
async fn what_comes_next_for_two_reasons_is_fetched_once() {
    use futures_util::FutureExt;

    use crate::fs::walk::Job;
    let names: Vec<String> = (0..20).map(|n| format!("d/{n:02}")).collect();
    let (server, fs) = mount(&[]).await;
    mkdirs(&server, &["d"]);
    server.tree(|tree| {
        names
            .iter()
            .for_each(|name| tree.put(name.as_bytes(), b"content"));
    });
    let dir = look_up(&fs, "d").await;
    list(&fs, dir).await;
    let mut files = Vec::new();
    for name in &names {
        files.push(fs.lookup(dir, &name.as_bytes()[2..]).await.unwrap().ino);
    }
    let start = crate::clock::now();
    let mut tables = fs.tables();
    let tables = &mut *tables;
    let (walk, attrs) = (&mut tables.walk, &tables.attrs);
    let (inodes, dirs) = (&mut tables.inodes, &mut tables.dirs);
    let life = Duration::from_millis(80);
    // The second time it is another walk.
    for begins in [Duration::ZERO, Duration::from_secs(30)] {
        let now = start + begins;
        walk.visited(dir, false, inodes, dirs, now);
        for ino in &files[..2] {
            walk.opened(*ino, life, inodes, now + Duration::from_secs(5));
        }
        let mut planned = Vec::new();
        for job in walk.next(inodes, dirs, attrs, now + Duration::from_secs(5)) {
            if let Job::Fetch(fetch) = job {
                planned.push(fetch.ino);
                let fetching = async {}.boxed().shared();
                walk.begin(fetch, fetching, inodes, now);
                walk.end(fetch, None, life, inodes);
            }
        }
        let count = planned.len();
        assert!(count > 0);
        planned.sort();
        planned.dedup();
        assert_eq!(planned.len(), count);
        for ino in &files[2..12] {
            walk.opened(*ino, life, inodes, now + Duration::from_secs(5));
        }
    }
}

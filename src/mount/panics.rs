//! A panic is a mistake of ours: it goes to the log, with the way that led to it, and not to the
//! user's terminal. What it ends is decided where it is caught: one request, or one task.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;

/// Has all panics logged from now on.
pub(super) fn log() {
    std::panic::set_hook(Box::new(|info| {
        for line in lines(info, &Backtrace::force_capture()) {
            log::error!("{line}");
        }
    }));
}

fn lines(info: &PanicHookInfo<'_>, trace: &Backtrace) -> Vec<String> {
    let place = info
        .location()
        .map_or_else(String::new, |at| format!(" at {at}"));
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let message = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let message = message.unwrap_or("no message");
    let first = format!(
        "a mistake in sftpfs{place}: {message}. What was asked for fails with EIO, the mount goes on; \
         please report this and the lines that follow"
    );
    let trace = trace.to_string();
    let frames = trace.lines().map(str::trim_end).map(str::to_owned);
    std::iter::once(first)
        .chain(frames.take(FRAMES_MAX))
        .collect()
}

/// Lines of a way back: two each call, and there may be a hundred calls of the runtime.
const FRAMES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place_and_the_way_to_it() {
        // The hook is the whole process', so that another test's panic may come in between.
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            tell.lock()
                .unwrap()
                .push(lines(info, &Backtrace::force_capture()));
        }));
        let caught = std::panic::catch_unwind(|| panic!("of this test"));
        std::panic::set_hook(before);
        assert!(caught.is_err());
        let told = told.lock().unwrap();
        let ours = told.iter().find(|lines| lines[0].contains("of this test"));
        let ours = ours.unwrap();
        assert!(ours[0].contains("panics.rs"), "{}", ours[0]);
        assert!(ours.len() > 4, "{ours:?}");
    }
}

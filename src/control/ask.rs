//! The user's end of a control socket.

use std::io;
use std::time::Duration;

use nix::unistd::geteuid;

use super::place::{Place, look};
use super::socket::{Line, PATIENCE};
use crate::status::{Report, Silence, Told};
use crate::transport;

/// How a mount is.
pub(crate) fn status(place: &Place) -> Told {
    let mut line = connect(place)?;
    line.say(b"status\n").map_err(|error| mute(&error))?;
    report(&mut line, PATIENCE)
}

/// Has a mount try now to reach its server, asking the person at this terminal what is asked. Returns
/// how the mount is then.
pub(crate) fn reconnect(place: &Place) -> Told {
    let mut line = connect(place)?;
    // Where nobody can answer, the server is not to be bothered with guesses.
    let wanted: &[u8] = match transport::is_person_there() {
        true => b"reconnect asking\n",
        false => b"reconnect\n",
    };
    line.say(wanted).map_err(|error| mute(&error))?;
    report(&mut line, TRY_MAX)
}

/// Connects to whoever may answer for the mount, and nobody else.
fn connect(place: &Place) -> Result<Line, Silence> {
    let mut silence = Silence::NoSocket;
    for path in &place.sockets {
        match look(path) {
            Ok((_, owner)) if owner == place.owner => {}
            // In /tmp anybody may have put something there.
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                silence = Silence::Forbidden;
                continue;
            }
            Err(_) => continue,
        }
        match Line::to(path) {
            Ok(line) if line.peer().is_ok_and(|peer| peer == place.owner) => return Ok(line),
            Ok(_) => {}
            Err(error) => silence = why_not(&error),
        }
    }
    let others = !geteuid().is_root() && geteuid() != place.owner;
    if silence == Silence::NoSocket && others {
        return Err(Silence::Forbidden);
    }
    Err(silence)
}

fn why_not(error: &io::Error) -> Silence {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Silence::Gone,
        io::ErrorKind::PermissionDenied => Silence::Forbidden,
        _ => Silence::Mute,
    }
}

fn mute(error: &io::Error) -> Silence {
    log::debug!("control socket: {error}");
    Silence::Mute
}

/// Lines up to `end`, each in time; questions among them are answered.
fn report(line: &mut Line, within: Duration) -> Told {
    let mut text = String::new();
    for _ in 0..LINES_MAX {
        let heard = line.hear(within).map_err(|error| mute(&error))?;
        let heard = String::from_utf8_lossy(&heard);
        if heard == "end" {
            return Report::decode(&text).ok_or(Silence::Mute);
        }
        match question_of(&heard) {
            Some((question, echo)) => {
                let answer = transport::ask_person(&question, echo);
                let said = answer.as_ref().map(transport::Secret::bytes);
                let said = said.map_or(&b"-"[..], |_| b"+");
                let rest = answer.as_ref().map(transport::Secret::bytes);
                line.say(said)
                    .and_then(|()| line.say(rest.unwrap_or_default()))
                    .and_then(|()| line.say(b"\n"))
                    .map_err(|error| mute(&error))?;
            }
            None => {
                text.push_str(&heard);
                text.push('\n');
            }
        }
    }
    Err(Silence::Mute)
}

/// `ask hidden TEXT` or `ask shown TEXT`, the text with `\n` and `\\` in it.
fn question_of(line: &str) -> Option<(String, bool)> {
    let (how, escaped) = line.strip_prefix("ask ")?.split_once(' ')?;
    let mut text = String::new();
    let mut letters = escaped.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(if letters.next()? == 'n' { '\n' } else { '\\' }),
            plain => text.push(plain),
        }
    }
    Some((text, how == "shown"))
}

/// Longer than the mount takes for a try: 30 s.
const TRY_MAX: Duration = Duration::from_secs(40);

/// A report has a dozen lines; a login has a few questions.
const LINES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_of_several_lines_is_one_line_on_the_way() {
        let asked = question_of(r"ask hidden Door\nme's \\password: ");
        assert_eq!(asked, Some(("Door\nme's \\password: ".to_owned(), false)));
        assert!(question_of("ask shown Code: ").unwrap().1);
        assert_eq!(question_of("state connected"), None);
    }
}

//! A peer that does what a test's script says, request by request: for answers that no good server
//! gives, and orders that no good server keeps.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::sftp::{Frames, Request, RequestId, Response};

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Answered at once.
    Answer(Response),
    /// Answered when a later reply says so.
    Hold(Response),
    /// Answered at once, and then all that is held, the latest first.
    ThenHeld(Response),
    /// These bytes, whatever they are.
    Raw(Bytes),
    /// Never answered.
    Silence,
    /// The connection ends, and what is held is lost.
    HangUp,
}

/// A connection to a peer that says VERSION with these extensions, and then to the n-th request
/// (from 0) what `script` replies. Served by a task of the current runtime.
pub(crate) fn script(
    extensions: &[(&'static str, &'static str)],
    script: impl FnMut(usize, Request) -> Reply + Send + 'static,
) -> DuplexStream {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let extensions = extensions
        .iter()
        .map(|(name, data)| (text(name), text(data)))
        .collect();
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(serve(
        theirs,
        Response::Version {
            version: 3,
            extensions,
        },
        script,
    ));
    ours
}

async fn serve(
    mut stream: DuplexStream,
    version: Response,
    mut script: impl FnMut(usize, Request) -> Reply,
) {
    let mut frames = Frames::new(1 << 20);
    let (mut held, mut count) = (Vec::new(), 0);
    loop {
        while let Some(frame) = frames.next().unwrap() {
            let (id, request) = Request::decode(frame).unwrap();
            if let Request::Init { .. } = request {
                send(&mut stream, id, &version).await;
                continue;
            }
            let reply = script(count, request);
            count += 1;
            match reply {
                Reply::Answer(response) => send(&mut stream, id, &response).await,
                Reply::Hold(response) => held.push((id, response)),
                Reply::ThenHeld(response) => {
                    send(&mut stream, id, &response).await;
                    for (id, response) in held.drain(..).rev() {
                        send(&mut stream, id, &response).await;
                    }
                }
                Reply::Raw(bytes) => write(&mut stream, &bytes).await,
                Reply::Silence => {}
                Reply::HangUp => return,
            }
        }
        if stream.read_buf(frames.buffer()).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

async fn send(stream: &mut DuplexStream, id: RequestId, response: &Response) {
    write(stream, &response.encode(id).into_bytes()).await;
}

async fn write(stream: &mut DuplexStream, bytes: &[u8]) {
    // A client that hung up is found out by the next read.
    let _ = stream.write_all(bytes).await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::sftp::{Request, RequestId, Response, StatusCode};
    use crate::testing::{Reply, Talk, script, status};

    fn limits() -> Request {
        Request::Limits
    }

    #[tokio::test]
    async fn held_answers_follow_the_one_that_frees_them() {
        let stream = script(&[("fsync@openssh.com", "1")], |n, _| {
            let answer = Response::Data(Bytes::from(n.to_string()));
            if n < 2 {
                Reply::Hold(answer)
            } else {
                Reply::ThenHeld(answer)
            }
        });
        let (mut talk, version) = Talk::begin(stream).await;
        let Response::Version {
            version: 3,
            extensions,
        } = version
        else {
            panic!("{version:?}")
        };
        assert_eq!(extensions.len(), 1);
        for id in [10, 11, 12] {
            talk.say(&limits(), RequestId(id)).await;
        }
        for (id, data) in [(12, "2"), (11, "1"), (10, "0")] {
            let expected = (RequestId(id), Response::Data(Bytes::from(data)));
            assert_eq!(talk.hear().await, Some(expected));
        }
    }

    #[tokio::test]
    async fn a_script_may_be_silent_say_anything_and_hang_up() {
        let said = status(StatusCode::FAILURE)
            .encode(RequestId(4711))
            .into_bytes();
        let stream = script(&[], move |n, _| match n {
            0 => Reply::Silence,
            1 => Reply::Raw(said.clone()),
            2 => Reply::Answer(status(StatusCode::EOF)),
            _ => Reply::HangUp,
        });
        let (mut talk, _) = Talk::begin(stream).await;
        for id in 0..4 {
            talk.say(&limits(), RequestId(id)).await;
        }
        let expected = (RequestId(4711), status(StatusCode::FAILURE));
        assert_eq!(talk.hear().await, Some(expected));
        assert_eq!(
            talk.hear().await,
            Some((RequestId(2), status(StatusCode::EOF)))
        );
        assert_eq!(talk.hear().await, None);
    }
}

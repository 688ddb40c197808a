//! Requests and responses in a line of the log: what they are, without the data they carry.

use crate::sftp::{Request, Response};

pub(super) fn request(request: &Request) -> String {
    match request {
        Request::Write {
            handle,
            offset,
            data,
        } => {
            let len = data.len();
            format!("Write {{ handle: {handle:?}, offset: {offset}, data: {len} bytes }}")
        }
        other => format!("{other:?}"),
    }
}

pub(super) fn response(response: &Response) -> String {
    match response {
        Response::Data(data) => format!("Data({} bytes)", data.len()),
        Response::Names(names) => format!("Names({} entries)", names.len()),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_a_file_holds_never_reaches_the_log() {
        let secret = || Bytes::from_static(b"secret");
        let write = Request::Write {
            handle: Bytes::from_static(b"h"),
            offset: 7,
            data: secret(),
        };
        for line in [request(&write), response(&Response::Data(secret()))] {
            assert!(
                line.contains("6 bytes") && !line.contains("secret"),
                "{line}"
            );
        }
    }
}

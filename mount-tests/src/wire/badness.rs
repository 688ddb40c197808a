//! Servers that are out of order: what becomes of answers on their way to sftpfs.

/// What is wrong with a server, from a packet on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Badness {
    /// It takes no request any more.
    StopsReading,
    /// It answers nothing any more.
    StopsAnswering,
    /// It answers, but each answer waits for so many milliseconds.
    AnswersSlowly(u64),
    /// Bytes that are no packet.
    SendsRubbish,
    /// A packet longer than any may be.
    SendsEndlessPacket,
    /// An answer to a question that nobody asked, and then none to the one that was.
    AnswersAnotherQuestion,
    /// DATA of more bytes than were asked for.
    SendsTooMuchData,
    /// A NAME where there should be something else.
    AnswersInAnotherType,
    /// A packet that ends before what is in it does.
    SendsHalfPackets,
}

/// Makes answers bad, on one connection.
#[derive(Default)]
pub(super) struct Spoiler {
    /// Whether what is done once was done.
    done: bool,
}

impl Spoiler {
    /// What is sent in place of this answer; nothing if it is empty.
    /// `asked` is how many bytes were asked for, if it is the answer to a READ.
    pub(super) fn spoil(&mut self, how: Badness, answer: Vec<u8>, asked: Option<u32>) -> Vec<u8> {
        match how {
            Badness::StopsReading => answer,
            Badness::StopsAnswering => Vec::new(),
            Badness::AnswersSlowly(ms) => {
                std::thread::sleep(std::time::Duration::from_millis(ms));
                answer
            }
            _ if self.done => answer,
            Badness::SendsTooMuchData => match longer(&answer, asked) {
                None => answer,
                Some(longer) => self.once(longer),
            },
            Badness::SendsRubbish => self.once(vec![0x5a; 5000]),
            Badness::SendsEndlessPacket => {
                let mut endless = 0xffff_fff0_u32.to_be_bytes().to_vec();
                endless.extend([DATA; 9000]);
                self.once(endless)
            }
            Badness::AnswersAnotherQuestion => {
                self.done = true;
                with_id(answer, 0xdead_beef)
            }
            Badness::AnswersInAnotherType => self.once(name_for(&answer)),
            Badness::SendsHalfPackets => self.once(half(&answer)),
        }
    }

    fn once(&mut self, instead: Vec<u8>) -> Vec<u8> {
        self.done = true;
        instead
    }
}

fn with_id(mut answer: Vec<u8>, id: u32) -> Vec<u8> {
    if let Some(place) = answer.get_mut(5..9) {
        place.copy_from_slice(&id.to_be_bytes());
    }
    answer
}

/// DATA with so many bytes more than were asked for that it still is a packet; nothing if this is
/// no DATA.
fn longer(answer: &[u8], asked: Option<u32>) -> Option<Vec<u8>> {
    if answer.get(4) != Some(&DATA) {
        return None;
    }
    let mut data = answer.get(13..)?.to_vec();
    data.resize(usize::try_from(asked?).ok()? + 100, 0xbb);
    let mut body = answer[4..9].to_vec();
    body.extend(u32::try_from(data.len()).ok()?.to_be_bytes());
    body.extend(data);
    Some(super::packet::with_length(&body))
}

/// A list of one name, in place of whatever it was; of a NAME, attributes.
fn name_for(answer: &[u8]) -> Vec<u8> {
    let mut body = answer.get(4..9).unwrap_or_default().to_vec();
    if body.first() == Some(&NAME) {
        body[0] = ATTRS;
        body.extend(0_u32.to_be_bytes());
    } else {
        body[0] = NAME;
        body.extend(1_u32.to_be_bytes());
        for text in ["wrong", "wrong"] {
            body.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
            body.extend(text.as_bytes());
        }
        body.extend(0_u32.to_be_bytes());
    }
    super::packet::with_length(&body)
}

/// The packet without its last part, and a length that fits.
fn half(answer: &[u8]) -> Vec<u8> {
    let body = answer.get(4..).unwrap_or_default();
    let cut = (body.len() * 2 / 3).max(6).min(body.len());
    super::packet::with_length(&body[..cut])
}

/// draft-ietf-secsh-filexfer-02, section 3.
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

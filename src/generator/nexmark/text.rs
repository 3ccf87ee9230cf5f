//! The names, addresses and channels of Nexmark's events.

use crate::generator::text::{letter, push_int, push_padded};
use crate::random::Random;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const COLD_CHANNELS: u32 = 10_000;
/// One bid in so many does not come by a hot channel.
const COLD_CHANNEL_ONE_IN: u64 = 2;
/// One cold channel in so many has no id in its URL.
const NO_ID_ONE_IN: u64 = 10;

/// The shortest random text; and one character in so many is the special one.
const WORDS_BYTES_MIN: u64 = 3;
const SPECIAL_ONE_IN: u64 = 13;

pub(super) fn push_name(random: &mut Random, out: &mut Vec<u8>) {
    out.extend_from_slice(random.pick(&FIRST_NAMES).as_bytes());
    out.push(b' ');
    out.extend_from_slice(random.pick(&LAST_NAMES).as_bytes());
}

pub(super) fn push_email(random: &mut Random, out: &mut Vec<u8>) {
    push_words(7, b' ', random, out);
    out.push(b'@');
    push_words(5, b' ', random, out);
    out.extend_from_slice(b".com");
}

pub(super) fn push_credit_card(random: &mut Random, out: &mut Vec<u8>) {
    for block in 0..4 {
        if block > 0 {
            out.push(b' ');
        }
        push_padded(random.below(10_000), 4, out);
    }
}

pub(super) fn city(random: &mut Random) -> &'static [u8] {
    random.pick(&CITIES).as_bytes()
}

pub(super) fn state(random: &mut Random) -> &'static [u8] {
    random.pick(&STATES).as_bytes()
}

/// Appends 3 to less than `bytes` characters, small letters and now and then the special one. Spaces at the
/// ends are left out.
pub(super) fn push_words(bytes: u64, special: u8, random: &mut Random, out: &mut Vec<u8>) {
    let start = out.len();
    for _ in 0..WORDS_BYTES_MIN + random.below(bytes - WORDS_BYTES_MIN) {
        let byte = if random.one_in(SPECIAL_ONE_IN) { special } else { letter(random) };
        if byte != b' ' || out.len() > start {
            out.push(byte);
        }
    }
    while out.len() > start && out.last() == Some(&b' ') {
        out.pop();
    }
}

/// Where bids come from: names and URLs.
pub(super) struct Channels {
    hot: Vec<Channel>,
    cold: Vec<Channel>,
}

struct Channel {
    name: Vec<u8>,
    url: Vec<u8>,
}

impl Channels {
    pub fn new(random: &mut Random) -> Channels {
        let mut hot = Vec::new();
        for name in HOT_CHANNELS {
            hot.push(Channel { name: name.into(), url: url(random) });
        }
        let mut cold = Vec::new();
        for number in 0..COLD_CHANNELS {
            let mut channel = Channel { name: b"channel-".to_vec(), url: url(random) };
            push_int(number, &mut channel.name);
            if !random.one_in(NO_ID_ONE_IN) {
                channel.url.extend_from_slice(b"&channel_id=");
                push_int(number.reverse_bits().cast_signed().unsigned_abs(), &mut channel.url);
            }
            cold.push(channel);
        }
        Channels { hot, cold }
    }

    /// The name and the URL of one.
    pub fn pick(&self, random: &mut Random) -> (&[u8], &[u8]) {
        let among = if random.one_in(COLD_CHANNEL_ONE_IN) { &self.cold } else { &self.hot };
        let channel = random.pick(among);
        (&channel.name, &channel.url)
    }
}

fn url(random: &mut Random) -> Vec<u8> {
    let mut url = b"https://www.nexmark.com/".to_vec();
    for _ in 0..3 {
        push_words(5, b'_', random, &mut url);
        url.push(b'/');
    }
    url.extend_from_slice(b"item.htm?query=1");
    url
}

//! The events of the Nexmark benchmark: persons, auctions and bids.
//!
//! Shares and distributions are those of the published generators, of Apache Beam
//! (`org.apache.beam.sdk.nexmark.sources.generator`) and of Nexmark for Flink
//! (<https://github.com/nexmark/nexmark>, as of commit 6b3646c), with their default settings:
//!
//! - Of 50 events the first is a person, the next 3 are auctions, 46 are bids. Persons and auctions are
//!   numbered from 1000.
//! - One bid in two is for the hot auction, the newest whose number is a multiple of 100 (counted from the
//!   first); the other ones are for one of the last 100 auctions or of the next 10. Three bids in four are by the hot
//!   bidder, the second of the newest hundred persons; three auctions in four are by the hot seller, the
//!   first of them; the others by one of the last 1000 persons or of the next 10.
//! - A price is `10^(6u) * 100` cents, `u` equally distributed from 0 to 1; an auction's reserve is its first
//!   bid and another price. Its category is 10 to 14, and it ends, on average, when the 100th auction after
//!   it begins.
//! - One bid in two comes by one of four hot channels, the others by one of `channel-0` to `channel-9999`;
//!   nine in ten of these have a `channel_id` in their URL.
//! - `extra` brings a person to 200 bytes on average, an auction to 500, a bid to 100, in the published
//!   way of counting: numbers are 8 bytes, names of fields none, a bid's channel and URL none.
//!
//! Two things differ. Flink's adds the first number of persons to a bidder twice, so that no bidder is a
//! person; here, as in Beam's, each is. And an event's contents depend on the seed and its number alone, so
//! that bids are the same whether or not the other events are written (their times are not: what is
//! written is what the time is divided by).
//!
//! Values are JSON in this order, without keys; each topic's partitions take turns:
//!
//! ```json
//! {"id":1000,"name":"Peter Jones","email_address":"…@….com","credit_card":"0000 1111 2222 3333",
//!  "city":"Boise","state":"ID","date_time":1700000000000,"extra":"…"}
//! {"id":1000,"item_name":"…","description":"…","initial_bid":100,"reserve":250,
//!  "date_time":1700000000001,"expires":1700000000100,"seller":1000,"category":10,"extra":"…"}
//! {"auction":1000,"bidder":1001,"price":789,"channel":"Google","url":"https://…",
//!  "date_time":1700000000123,"extra":"…"}
//! ```
//!
//! After the events come closing records, one a partition, an hour later: person 1, auction 1 of seller
//! 1, a bid of 0 for auction 1.

mod text;

use crate::generator::text::{Letters, push_int};
use crate::generator::{Record, Stream, Timeline};
use crate::random::Random;
use text::{Channels, push_credit_card, push_email, push_name, push_words};

/// Of so many events in a row …
const EPOCH: u64 = PERSONS + AUCTIONS + BIDS;
/// … the first are persons, …
const PERSONS: u64 = 1;
/// … then come auctions, …
const AUCTIONS: u64 = 3;
/// … the rest are bids.
const BIDS: u64 = 46;
/// Where they begin.
const FIRST_BID: u64 = PERSONS + AUCTIONS;

const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Of persons and of auctions, the hot one is in the newest batch of so many.
const HOT_BATCH: u64 = 100;
/// One in so many is not hot.
const COLD_AUCTION_ONE_IN: u64 = 2;
const COLD_BIDDER_ONE_IN: u64 = 4;
const COLD_SELLER_ONE_IN: u64 = 4;
/// How many auctions are under way.
const AUCTIONS_IN_FLIGHT: u64 = 100;
/// How many persons sell and bid.
const PERSONS_ACTIVE: u64 = 1_000;
/// So many persons and auctions that do not exist yet are sold by and bid for.
const LEAD: u64 = 10;
/// The number of closing persons and auctions, which no other has. No query selects it.
const CLOSING: u64 = 1;

const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;
/// What a number counts.
const NUMBER_BYTES: usize = 8;

/// A kind of event. Each has a topic of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who sells and bids.
    Person,
    /// What is sold.
    Auction,
    /// What is offered for it.
    Bid,
}

impl Kind {
    /// All of them, in the order in which an epoch has them.
    pub const ALL: [Kind; 3] = [Kind::Person, Kind::Auction, Kind::Bid];

    /// What follows the prefix in the topic's name, after a hyphen.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Person => "persons",
            Kind::Auction => "auctions",
            Kind::Bid => "bids",
        }
    }

    /// Where an epoch's first event of this kind stands in it, and how many there are.
    fn in_epoch(self) -> (u64, u64) {
        match self {
            Kind::Person => (0, PERSONS),
            Kind::Auction => (PERSONS, AUCTIONS),
            Kind::Bid => (FIRST_BID, BIDS),
        }
    }

    /// The event that is the `nth` of this kind.
    fn event(self, nth: u64) -> u64 {
        let (first, count) = self.in_epoch();
        nth / count * EPOCH + first + nth % count
    }

    /// The kind of an event, and its number among those of its kind.
    fn of(event: u64) -> (Kind, u64) {
        let (epoch, place) = (event / EPOCH, event % EPOCH);
        let kind = match place {
            0..PERSONS => Kind::Person,
            PERSONS..FIRST_BID => Kind::Auction,
            _ => Kind::Bid,
        };
        let (first, count) = kind.in_epoch();
        (kind, epoch * count + place - first)
    }
}

/// Which events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The same seed, the same events.
    pub seed: u64,
    /// Only those of this kind are written.
    pub only: Option<Kind>,
    /// By topic, its number of partitions. There are as many topics as kinds that are written.
    pub partitions: Vec<i32>,
    /// Whether closing records follow.
    pub close: bool,
}

impl Spec {
    /// The kinds that are written, each to the topic of the same place.
    pub fn kinds(only: Option<Kind>) -> Vec<Kind> {
        only.map_or(Kind::ALL.to_vec(), |kind| vec![kind])
    }
}

/// The stream of events.
pub struct Nexmark {
    spec: Spec,
    timeline: Timeline,
    random: Random,
    letters: Letters,
    channels: Channels,
    /// The number of the next record.
    next: u64,
    /// What is left to close: topic, kind and partition, the next one last.
    closing: Vec<(usize, Kind, i32)>,
    /// In the time between as many records, as many auctions begin as are under way.
    records_in_flight: u64,
}

impl Nexmark {
    /// Starts the stream.
    pub fn new(spec: Spec, timeline: Timeline) -> Nexmark {
        let random = Random::new(spec.seed);
        let mut closing = Vec::new();
        for (topic, kind) in Spec::kinds(spec.only).into_iter().enumerate().filter(|_| spec.close) {
            let partitions = spec.partitions.get(topic).copied().unwrap_or(0);
            closing.extend((0..partitions).map(|partition| (topic, kind, partition)));
        }
        closing.reverse();
        let (_, written) = spec.only.map_or((0, EPOCH), Kind::in_epoch);
        Nexmark {
            letters: Letters::new(&mut random.fork("letters")),
            channels: Channels::new(&mut random.fork("channels")),
            random: random.fork("events"),
            records_in_flight: AUCTIONS_IN_FLIGHT * written / AUCTIONS,
            next: 0,
            closing,
            timeline,
            spec,
        }
    }

    fn event(&self, record: &mut Record) {
        let (topic, event) = match self.spec.only {
            Some(kind) => (Some(0), kind.event(self.next)),
            None => (None, self.next),
        };
        let (kind, nth) = Kind::of(event);
        record.topic = topic.unwrap_or(kind as usize);
        record.timestamp_ms = self.timeline.at_ms(self.next);
        let partitions = self.spec.partitions.get(record.topic).copied().unwrap_or(0).max(1).unsigned_abs();
        // Below the number of partitions, which is an i32.
        record.partition = (nth % u64::from(partitions)) as i32;
        let mut random = self.random.fork_nth(event);
        record.value.clear();
        match kind {
            Kind::Person => self.person(nth + FIRST_PERSON, &mut random, record),
            Kind::Auction => self.auction(event, nth + FIRST_AUCTION, &mut random, record),
            Kind::Bid => self.bid(event, &mut random, record),
        }
    }

    fn person(&self, id: u64, random: &mut Random, record: &mut Record) {
        let at_ms = record.timestamp_ms;
        let value = &mut record.value;
        number(value, b"{\"id\":", id);
        let mut counted = NUMBER_BYTES;
        counted += counting(value, b",\"name\":\"", |out| push_name(random, out));
        counted += counting(value, b"\",\"email_address\":\"", |out| push_email(random, out));
        counted += counting(value, b"\",\"credit_card\":\"", |out| push_credit_card(random, out));
        counted += counting(value, b"\",\"city\":\"", |out| out.extend_from_slice(text::city(random)));
        counted += counting(value, b"\",\"state\":\"", |out| out.extend_from_slice(text::state(random)));
        number(value, b"\",\"date_time\":", at_ms);
        self.extra(PERSON_BYTES, counted, random, value);
    }

    fn auction(&self, event: u64, id: u64, random: &mut Random, record: &mut Record) {
        let at_ms = record.timestamp_ms;
        let person = last_person(event);
        let seller = match random.one_in(COLD_SELLER_ONE_IN) {
            true => any_person(person, random),
            false => person / HOT_BATCH * HOT_BATCH,
        };
        let (category, first) = (random.below(CATEGORIES), price(random));
        let reserve = first + price(random);
        let horizon_ms = self.timeline.at_ms(self.next + self.records_in_flight).abs_diff(at_ms);
        let expires_ms = at_ms.saturating_add_unsigned(1 + random.below((horizon_ms * 2).max(1)));
        let value = &mut record.value;
        number(value, b"{\"id\":", id);
        let mut counted = 6 * NUMBER_BYTES;
        counted += counting(value, b",\"item_name\":\"", |out| push_words(20, b' ', random, out));
        counted += counting(value, b"\",\"description\":\"", |out| push_words(100, b' ', random, out));
        number(value, b"\",\"initial_bid\":", first);
        number(value, b",\"reserve\":", reserve);
        number(value, b",\"date_time\":", at_ms);
        number(value, b",\"expires\":", expires_ms);
        number(value, b",\"seller\":", seller + FIRST_PERSON);
        number(value, b",\"category\":", category + FIRST_CATEGORY);
        self.extra(AUCTION_BYTES, counted, random, value);
    }

    fn bid(&self, event: u64, random: &mut Random, record: &mut Record) {
        let at_ms = record.timestamp_ms;
        let (person, last) = (last_person(event), last_auction(event));
        let auction = match random.one_in(COLD_AUCTION_ONE_IN) {
            true => {
                let oldest = last.saturating_sub(AUCTIONS_IN_FLIGHT);
                oldest + random.below(last - oldest + 1 + LEAD)
            }
            false => last / HOT_BATCH * HOT_BATCH,
        };
        let bidder = match random.one_in(COLD_BIDDER_ONE_IN) {
            true => any_person(person, random),
            false => person / HOT_BATCH * HOT_BATCH + 1,
        };
        let price = price(random);
        let (channel, url) = self.channels.pick(random);
        bid_fields(
            auction + FIRST_AUCTION,
            bidder + FIRST_PERSON,
            price,
            channel,
            url,
            at_ms,
            &mut record.value,
        );
        self.extra(BID_BYTES, 4 * NUMBER_BYTES, random, &mut record.value);
    }

    /// The last field, which brings a value that counts `counted` to `bytes` on average, a fifth of it more
    /// or less.
    fn extra(&self, bytes: usize, counted: usize, random: &mut Random, value: &mut Vec<u8>) {
        value.extend_from_slice(b",\"extra\":\"");
        let missing = bytes.saturating_sub(counted);
        let fifth = (missing + 2) / 5;
        self.letters.push(missing - fifth + random.below(2 * fifth as u64) as usize, random, value);
        value.extend_from_slice(b"\"}");
    }

    fn closing(&self, kind: Kind, record: &mut Record) {
        let at_ms = self.timeline.closing_ms();
        record.timestamp_ms = at_ms;
        let value = &mut record.value;
        value.clear();
        match kind {
            Kind::Person => {
                number(value, b"{\"id\":", CLOSING);
                value.extend_from_slice(b",\"name\":\"\",\"email_address\":\"\",\"credit_card\":\"\"");
                number(value, b",\"city\":\"\",\"state\":\"\",\"date_time\":", at_ms);
            }
            Kind::Auction => {
                number(value, b"{\"id\":", CLOSING);
                value.extend_from_slice(b",\"item_name\":\"\",\"description\":\"\"");
                number(value, b",\"initial_bid\":0,\"reserve\":0,\"date_time\":", at_ms);
                number(value, b",\"expires\":", at_ms);
                number(value, b",\"seller\":", CLOSING);
                number(value, b",\"category\":", FIRST_CATEGORY);
            }
            Kind::Bid => bid_fields(CLOSING, CLOSING, 0, b"", b"", at_ms, value),
        }
        value.extend_from_slice(b",\"extra\":\"\"}");
    }
}

impl Stream for Nexmark {
    fn next(&mut self, record: &mut Record) -> bool {
        record.key.clear();
        if self.next < self.timeline.records() {
            self.event(record);
            self.next += 1;
            return true;
        }
        let Some((topic, kind, partition)) = self.closing.pop() else { return false };
        (record.topic, record.partition) = (topic, partition);
        self.closing(kind, record);
        true
    }
}

/// The newest person, counted from 0, when an event happens: each epoch begins with its only one.
fn last_person(event: u64) -> u64 {
    const { assert!(PERSONS == 1) };
    event / EPOCH
}

/// The newest auction, counted from 0, when an auction or a bid happens.
fn last_auction(event: u64) -> u64 {
    event / EPOCH * AUCTIONS + (event % EPOCH - PERSONS).min(AUCTIONS - 1)
}

/// One of the active persons, `last` the newest, or of those to come.
fn any_person(last: u64, random: &mut Random) -> u64 {
    let persons = last + 1;
    let active = persons.min(PERSONS_ACTIVE);
    persons - active + random.below(active + LEAD)
}

/// In cents.
fn price(random: &mut Random) -> u64 {
    (10_f64.powf(random.unit() * 6.0) * 100.0).round() as u64
}

fn bid_fields(
    auction: u64,
    bidder: u64,
    price: u64,
    channel: &[u8],
    url: &[u8],
    at_ms: i64,
    out: &mut Vec<u8>,
) {
    number(out, b"{\"auction\":", auction);
    number(out, b",\"bidder\":", bidder);
    number(out, b",\"price\":", price);
    out.extend_from_slice(b",\"channel\":\"");
    out.extend_from_slice(channel);
    out.extend_from_slice(b"\",\"url\":\"");
    out.extend_from_slice(url);
    number(out, b"\",\"date_time\":", at_ms);
}

/// Appends `before` and a number.
fn number(out: &mut Vec<u8>, before: &[u8], value: impl itoa::Integer) {
    out.extend_from_slice(before);
    push_int(value, out);
}

/// Appends `before` and a text; returns how long the text is.
fn counting(out: &mut Vec<u8>, before: &[u8], push: impl FnOnce(&mut Vec<u8>)) -> usize {
    out.extend_from_slice(before);
    let start = out.len();
    push(out);
    out.len() - start
}

#[cfg(test)]
mod tests;

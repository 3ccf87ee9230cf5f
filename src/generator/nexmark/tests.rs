use std::collections::BTreeMap;

use super::*;
use crate::generator::tests::{all, hash, json};

const START_MS: i64 = 1_700_000_000_000;
const SPAN_MS: u64 = 600_000;

fn spec(only: Option<Kind>) -> Spec {
    Spec { seed: 1, only, partitions: vec![4; Spec::kinds(only).len()], close: true }
}

/// The records of a stream of so many events.
fn records(spec: &Spec, count: u64) -> Vec<Record> {
    let mut stream = Nexmark::new(spec.clone(), Timeline::spanning(START_MS, SPAN_MS, count));
    all(&mut stream)
}

fn of_kind(records: &[Record], kind: Kind) -> Vec<serde_json::Value> {
    records.iter().filter(|record| record.topic == kind as usize).map(json).collect()
}

#[test]
fn events_look_like_this() {
    let all = records(&spec(None), 100_000);
    let text = |record: &Record| String::from_utf8(record.value.clone()).unwrap();
    let closing = &all[100_000..];
    let shown = all[..2].iter().chain(&all[4..6]).chain([&closing[0], &closing[4], &closing[8]]);
    insta::assert_snapshot!(shown.map(text).collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let hashes = [spec(None), spec(Some(Kind::Bid)), Spec { seed: 2, ..spec(None) }];
    let hashes = hashes.map(|spec| format!("{:016x}", hash(&records(&spec, 20_000))));
    assert_eq!(hashes, ["23bc9b2343e38117", "3e983041df4b1ddd", "47e3d91f2431f863"]);
}

#[test]
fn of_fifty_events_one_is_a_person_and_three_are_auctions() {
    let all = records(&Spec { close: false, ..spec(None) }, 50_000);
    let kinds = |records: &[Record]| {
        let mut counts = [0; 3];
        records.iter().for_each(|record| counts[record.topic] += 1);
        counts
    };
    assert!(all.chunks(50).all(|epoch| kinds(epoch) == [1, 3, 46]));
    let ids = |kind| of_kind(&all, kind).iter().map(|json| json["id"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids(Kind::Person), (1_000..2_000).collect::<Vec<_>>());
    assert_eq!(ids(Kind::Auction), (1_000..4_000).collect::<Vec<_>>());
    for topic in 0..3 {
        let places = all.iter().filter(|record| record.topic == topic).map(|record| record.partition);
        assert!(places.enumerate().all(|(nth, partition)| partition == (nth % 4) as i32), "topic {topic}");
    }
    let times: Vec<i64> = all.iter().map(|record| record.timestamp_ms).collect();
    assert!(times.is_sorted() && times[0] == START_MS && times[49_999] == START_MS + SPAN_MS as i64);
    assert!(
        all.iter().all(|record| json(record)["date_time"] == record.timestamp_ms && record.key().is_none())
    );
}

#[test]
fn events_of_one_kind_are_those_of_all() {
    let all = records(&Spec { close: false, ..spec(None) }, 50_000);
    for (kind, count) in [(Kind::Person, 1_000), (Kind::Auction, 3_000), (Kind::Bid, 46_000)] {
        let only = records(&Spec { close: false, ..spec(Some(kind)) }, count);
        let among = of_kind(&all, kind);
        assert_eq!((only.len() as u64, among.len() as u64), (count, count));
        for (only, mut among) in only.iter().zip(among) {
            let mut only = json(only);
            for time in ["date_time", "expires"] {
                only.as_object_mut().unwrap().remove(time);
                among.as_object_mut().unwrap().remove(time);
            }
            assert_eq!(only, among);
        }
    }
}

#[test]
fn half_of_the_bids_are_hot_and_three_in_four_bidders_and_sellers() {
    let all = records(&Spec { close: false, ..spec(None) }, 200_000);
    let (mut hot_bids, mut hot_bidders, mut hot_sellers) = (0, 0, 0);
    let (mut bids, mut auctions) = (0, 0);
    // The newest person and the newest auction.
    let (mut person, mut auction) = (0, 0);
    for record in &all {
        let json = json(record);
        let id = |name: &str| json[name].as_u64().unwrap() - 1_000;
        if record.topic == Kind::Person as usize {
            person = id("id");
        } else if record.topic == Kind::Auction as usize {
            auction = id("id");
            auctions += 1;
            let oldest = (person + 1).saturating_sub(1_000).min(person / 100 * 100);
            assert!((oldest..=person + 10).contains(&id("seller")), "{json} after {person}");
            hot_sellers += u32::from(id("seller") == person / 100 * 100);
        } else {
            bids += 1;
            let oldest = auction.saturating_sub(100).min(auction / 100 * 100);
            assert!((oldest..=auction + 10).contains(&id("auction")), "{json} after {auction}");
            hot_bids += u32::from(id("auction") == auction / 100 * 100);
            let oldest = (person + 1).saturating_sub(1_000).min(person / 100 * 100);
            assert!((oldest..=person + 10).contains(&id("bidder")), "{json} after {person}");
            hot_bidders += u32::from(id("bidder") == person / 100 * 100 + 1);
        }
    }
    // A cold one may hit the hot one by chance: of about 110 auctions or up to 1,010 persons.
    let share = |hot: u32, of: u32| f64::from(hot) / f64::from(of);
    assert!((0.49..0.52).contains(&share(hot_bids, bids)), "{hot_bids} of {bids}");
    assert!((0.74..0.77).contains(&share(hot_bidders, bids)), "{hot_bidders} of {bids}");
    assert!((0.73..0.78).contains(&share(hot_sellers, auctions)), "{hot_sellers} of {auctions}");
}

#[test]
fn prices_channels_and_categories_are_as_published() {
    let all = records(&Spec { close: false, ..spec(None) }, 200_000);
    let bids = of_kind(&all, Kind::Bid);
    let (mut decades, mut channels, mut with_id) = ([0_u32; 6], BTreeMap::new(), 0);
    for bid in &bids {
        let price = bid["price"].as_u64().unwrap();
        assert!((100..=100_000_000).contains(&price));
        decades[((price as f64 / 100.0).log10() as usize).min(5)] += 1;
        let (channel, url) = (bid["channel"].as_str().unwrap(), bid["url"].as_str().unwrap());
        assert!(url.starts_with("https://www.nexmark.com/") && url.contains("/item.htm?query=1"), "{url}");
        *channels.entry(channel.to_owned()).or_insert(0_u32) += 1;
        if let Some(number) = channel.strip_prefix("channel-") {
            assert!(number.parse::<u32>().unwrap() < 10_000);
            with_id += u32::from(url.contains("&channel_id="));
        }
    }
    let total = bids.len() as f64;
    assert!(decades.iter().all(|count| (f64::from(*count) / total - 1.0 / 6.0).abs() < 0.005), "{decades:?}");
    for hot in ["Google", "Facebook", "Baidu", "Apple"] {
        assert!((f64::from(channels[hot]) / total - 0.125).abs() < 0.005, "{hot}: {}", channels[hot]);
    }
    // Of 10,000 cold channels nearly all were seen, and nine in ten have an id.
    assert!(channels.len() > 9_900, "{}", channels.len());
    assert!((f64::from(with_id) / (total / 2.0) - 0.9).abs() < 0.02, "{with_id}");

    let auctions = of_kind(&all, Kind::Auction);
    let mut categories = BTreeMap::new();
    let mut lengths_ms = 0;
    for auction in &auctions {
        *categories.entry(auction["category"].as_u64().unwrap()).or_insert(0_u32) += 1;
        assert!(auction["reserve"].as_u64() > auction["initial_bid"].as_u64());
        lengths_ms += auction["expires"].as_i64().unwrap() - auction["date_time"].as_i64().unwrap();
    }
    assert_eq!(categories.keys().copied().collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    assert!(categories.values().all(|count| (2_200..2_600).contains(count)), "{categories:?}");
    // 100 auctions are 1,666 events of 3 ms.
    let average_ms = lengths_ms as f64 / auctions.len() as f64;
    assert!((average_ms / 5_000.0 - 1.0).abs() < 0.03, "{average_ms}");
}

#[test]
fn events_count_as_many_bytes_as_published() {
    let all = records(&Spec { close: false, ..spec(None) }, 100_000);
    let text = |json: &serde_json::Value, name: &str| json[name].as_str().unwrap().len();
    let average = |kind, numbers: usize, texts: &[&str]| {
        let events = of_kind(&all, kind);
        let counted = |json| numbers * 8 + texts.iter().map(|name| text(json, name)).sum::<usize>();
        events.iter().map(counted).sum::<usize>() as f64 / events.len() as f64
    };
    let person = ["name", "email_address", "credit_card", "city", "state", "extra"];
    for (average, expected) in [
        (average(Kind::Person, 1, &person), 200.0),
        (average(Kind::Auction, 6, &["item_name", "description", "extra"]), 500.0),
        (average(Kind::Bid, 4, &["extra"]), 100.0),
    ] {
        // The published way of drawing is half a byte short.
        assert!((average - expected).abs() < 1.5, "{average}, not {expected}");
    }
}

#[test]
fn each_partition_of_each_topic_is_closed() {
    let spec = Spec { partitions: vec![1, 2, 3], ..spec(None) };
    let all = records(&spec, 500);
    let closing = &all[500..];
    let places: Vec<(usize, i32)> = closing.iter().map(|record| (record.topic, record.partition)).collect();
    assert_eq!(places, [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]);
    for record in closing {
        let (json, closing_ms) = (json(record), START_MS + SPAN_MS as i64 + 3_600_000);
        assert_eq!((record.timestamp_ms, json["date_time"].as_i64()), (closing_ms, Some(closing_ms)));
        // As complete as the others.
        let other = all.iter().find(|other| other.topic == record.topic).unwrap();
        let names = |json: &serde_json::Value| json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&json), names(&self::json(other)));
    }
    let bid = json(closing.last().unwrap());
    assert_eq!((bid["price"].as_u64(), bid["auction"].as_u64()), (Some(0), Some(1)));
    let only = records(&Spec { partitions: vec![2], ..self::spec(Some(Kind::Bid)) }, 500);
    assert_eq!(
        only[500..].iter().map(|record| (record.topic, record.partition)).collect::<Vec<_>>(),
        [(0, 0), (0, 1)]
    );
}

/// From the comments of the published generator: of a bid's auction, person and batch.
#[test]
fn the_newest_of_an_epoch_are_those_before_the_bids() {
    assert_eq!([0, 1, 49, 50, 51].map(last_person), [0, 0, 0, 1, 1]);
    assert_eq!([1, 2, 3, 4, 49, 51, 54].map(last_auction), [0, 1, 2, 2, 2, 3, 5]);
    for event in 0..1_000 {
        let (kind, nth) = Kind::of(event);
        assert_eq!(kind.event(nth), event);
    }
}

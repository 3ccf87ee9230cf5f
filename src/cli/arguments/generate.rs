//! What can be written behind `thalweg bench`.

use std::num::NonZeroU64;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};

use crate::generator::kafka::{Events, Request, Times};
use crate::generator::nexmark::Kind;
use crate::generator::orders::SIZE_BYTES_MAX;
use crate::kafka::Compression;
use crate::time::parse_duration_ms;

pub(super) const BENCH_EXAMPLES: &str = "\
Examples:
  thalweg bench generate orders --topic orders --create
  thalweg bench generate nexmark --topic nexmark --create --only bids";

const GENERATE_EXAMPLES: &str = "\
Examples:
  thalweg bench generate orders --topic orders --create --records 20000000
  thalweg bench generate nexmark --topic nexmark --create --only bids --records 20000000

Without --rate the same seed and options give the same records, byte by byte, in the same order in each
partition; with it all but their times. Records are appended: a topic that has some keeps them.

When all is written and acknowledged, a line of JSON on standard output says what: topics (with the number
of partitions and of records of each), records (closing ones included), bytes (of keys and values),
seconds, records_per_s, lag_max_ms (how late the latest record was by its schedule; 0 without --rate),
first_event_ms and last_event_ms (before disorder; closing records not counted).

Exit codes: 0 done, 1 Kafka failed, and some records may be written, 2 wrong usage or setting, a topic that
does not exist, or one with another number of partitions.";

const ORDERS_EXAMPLES: &str = "\
Examples:
  thalweg bench generate orders --topic orders --create --partitions 4 --records 20000000
  thalweg bench generate orders --topic orders --keys 1000000 --zipf 1.1 --span 1h --disorder 4s
  thalweg bench generate orders --topic orders --rate 50000 --records 3000000   a minute, in real time

An order is a line of JSON, all fields in this order; its key is the customer, its timestamp created_at:
  {\"order_id\":\"order-0000000123\",\"customer\":\"customer-000042\",\"amount\":1234,\"status\":\"paid\",
   \"created_at\":1700000000123,\"currency\":\"EUR\",\"note\":\"…\"}
amount is 1 to 100000 cents; half of the orders are paid, a quarter each pending and cancelled; created_at
is in milliseconds; a note in 50 has escapes or characters beyond ASCII. The partition is that of Kafka's
default partitioner. At the end each partition gets a closing record, an hour ahead: it is cancelled, of
amount 0, and of a customer without other orders.";

const NEXMARK_EXAMPLES: &str = "\
Examples:
  thalweg bench generate nexmark --topic nexmark --create --records 20000000
  thalweg bench generate nexmark --topic nexmark --create --only bids --rate 100000 --records 6000000

Writes TOPIC-persons, TOPIC-auctions and TOPIC-bids: of 50 events 1, 3 and 46, with the distributions of the
published generators (Apache Beam's and Nexmark for Flink's). Values are JSON, there are no keys, and the
partitions of a topic take turns. Events are in order. A bid:
  {\"auction\":1000,\"bidder\":1001,\"price\":789,\"channel\":\"Google\",\"url\":\"https://…\",
   \"date_time\":1700000000123,\"extra\":\"…\"}
At the end each partition gets a closing record, an hour ahead: person 1, auction 1, or a bid of 0 for
auction 1.";

/// What benchmarks are made of.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BenchCommand {
    /// Write events to Kafka, by seed, as fast as possible or at a rate.
    #[command(after_help = GENERATE_EXAMPLES)]
    Generate {
        /// Which events.
        #[command(subcommand)]
        events: GenerateCommand,
    },
}

/// Which events.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum GenerateCommand {
    /// Orders of customers, keyed by customer.
    #[command(after_help = ORDERS_EXAMPLES)]
    Orders(OrdersArguments),
    /// Persons, auctions and bids of the Nexmark benchmark.
    #[command(after_help = NEXMARK_EXAMPLES)]
    Nexmark(NexmarkArguments),
}

/// For all events.
#[derive(Args, Debug)]
struct CommonArguments {
    /// How many records; closing ones come on top.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    records: u64,
    /// Event time from the first record to the last.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration_ms, conflicts_with = "rate")]
    span: u64,
    /// Event time of the first record, in milliseconds since 1970.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 1_700_000_000_000,
        value_parser = clap::value_parser!(i64).range(1..=4_102_444_800_000),
        conflicts_with = "rate"
    )]
    start: i64,
    /// So many records a second, from a second after the start on. Their event time is the instant at which
    /// they are due, whether or not they leave in time; what is late is made up for as fast as possible.
    /// Without it: as fast as possible.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<NonZeroU64>,
    /// The same seed, the same records.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Create what topics do not exist.
    #[arg(long)]
    create: bool,
    /// Partitions of a topic that is created [default: 4]. One that exists must have as many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,
    /// No closing records at the end.
    #[arg(long)]
    no_close: bool,
    /// How the producer compresses its batches.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
}

/// Which orders.
#[derive(Args, Debug)]
pub(in crate::cli) struct OrdersArguments {
    /// The topic.
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// How many customers.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000_000))]
    keys: u64,
    /// Customers by Zipf's law with this exponent, 0 to 10; customer-000000 is the most frequent. 0: all are
    /// equally frequent.
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.0, value_parser = exponent)]
    zipf: f64,
    /// How late orders may be: by 0 to this, each equally likely [default: 4s, with --rate 0s].
    #[arg(long, value_name = "DURATION", value_parser = duration_ms)]
    disorder: Option<u64>,
    /// The length of each value; the note fills it.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = RangedU64ValueParser::<usize>::new().range(1..=SIZE_BYTES_MAX as u64))]
    size: usize,
    #[command(flatten)]
    common: CommonArguments,
}

/// Which events of Nexmark.
#[derive(Args, Debug)]
pub(in crate::cli) struct NexmarkArguments {
    /// What the names of the topics begin with; -persons, -auctions or -bids follows.
    #[arg(long, value_name = "PREFIX")]
    topic: String,
    /// Write only events of this kind; --records counts these.
    #[arg(long, value_enum, value_name = "KIND")]
    only: Option<Only>,
    #[command(flatten)]
    common: CommonArguments,
}

/// A kind of Nexmark's events.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Only {
    /// Who sells and bids.
    Persons,
    /// What is sold.
    Auctions,
    /// What is offered.
    Bids,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Codec {
    /// Not at all.
    None,
    /// By LZ4.
    Lz4,
}

impl GenerateCommand {
    /// What the generator and the report call it.
    pub(in crate::cli) fn name(&self) -> &'static str {
        match self {
            GenerateCommand::Orders(_) => "orders",
            GenerateCommand::Nexmark(_) => "nexmark",
        }
    }

    /// As the generator takes it.
    pub(in crate::cli) fn request(&self) -> Request {
        match self {
            GenerateCommand::Orders(arguments) => arguments.request(),
            GenerateCommand::Nexmark(arguments) => {
                let only = arguments.only.map(|only| match only {
                    Only::Persons => Kind::Person,
                    Only::Auctions => Kind::Auction,
                    Only::Bids => Kind::Bid,
                });
                arguments.common.request(&arguments.topic, Events::Nexmark { only })
            }
        }
    }
}

impl OrdersArguments {
    fn request(&self) -> Request {
        // A latency is measured from the event time.
        let usual_ms = if self.common.rate.is_some() { 0 } else { 4_000 };
        let events = Events::Orders {
            keys: self.keys,
            zipf: self.zipf,
            disorder_ms: self.disorder.unwrap_or(usual_ms),
            size_bytes: self.size,
        };
        self.common.request(&self.topic, events)
    }
}

impl CommonArguments {
    fn request(&self, topic: &str, events: Events) -> Request {
        Request {
            events,
            topic: topic.to_owned(),
            partitions: self.partitions,
            create: self.create,
            records: self.records,
            times: match self.rate {
                Some(rate) => Times::Rate(rate),
                None => Times::Spanning { start_ms: self.start, span_ms: self.span },
            },
            seed: self.seed,
            close: !self.no_close,
            compression: match self.compression {
                Codec::None => Compression::None,
                Codec::Lz4 => Compression::Lz4,
            },
        }
    }
}

fn duration_ms(text: &str) -> Result<u64, String> {
    // A century: an event time stays far from the ends of what can be counted.
    const MAX_MS: i64 = 36_525 * 86_400_000;
    match parse_duration_ms(text)? {
        ms if ms > MAX_MS => Err("it is more than a hundred years".into()),
        ms => Ok(ms.unsigned_abs()),
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.0..=10.0).contains(&number) { Ok(number) } else { Err("it is not within 0 and 10".into()) }
}

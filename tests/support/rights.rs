//! Access rules of a broker. No client library at hand can create them, and Kafka's own tool takes
//! seconds for each, so the one request that it takes is written here.

use std::io::{Read, Write};
use std::net::TcpStream;

/// What a rule is about, as the protocol numbers it.
#[derive(Clone, Copy, Debug)]
pub enum Resource {
    /// A topic.
    Topic = 2,
    /// A consumer group.
    Group = 3,
    /// A transactional id.
    Transaction = 5,
}

/// What a rule allows, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read.
    Read = 3,
    /// Write.
    Write = 4,
    /// Create.
    Create = 5,
    /// Delete, and DeleteRecords.
    Delete = 6,
    /// Describe.
    Describe = 8,
    /// DescribeConfigs.
    DescribeConfigs = 10,
}

/// Allows `user` an operation on all resources whose names begin with `prefix`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// To whom.
    pub user: String,
    /// On what.
    pub resource: Resource,
    /// Its name's beginning.
    pub prefix: String,
    /// What.
    pub operation: Operation,
}

/// Adds rules, as the user that the broker takes an unknown client for.
pub fn grant(bootstrap: &str, rules: &[Rule]) {
    const CREATE_ACLS: i16 = 30;
    const VERSION: i16 = 1;
    const PREFIXED: u8 = 4;
    const ALLOW: u8 = 3;
    let mut request = Vec::new();
    request.extend(CREATE_ACLS.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(1_i32.to_be_bytes()); // the request's number
    text(&mut request, "tests");
    request.extend((rules.len() as i32).to_be_bytes());
    for rule in rules {
        request.push(rule.resource as u8);
        text(&mut request, &rule.prefix);
        request.push(PREFIXED);
        text(&mut request, &format!("User:{}", rule.user));
        text(&mut request, "*"); // from any host
        request.extend([rule.operation as u8, ALLOW]);
    }
    let mut broker = TcpStream::connect(bootstrap).expect("the broker");
    broker.write_all(&(request.len() as i32).to_be_bytes()).expect("a request");
    broker.write_all(&request).expect("a request");
    let mut length = [0; 4];
    broker.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    broker.read_exact(&mut answer).expect("an answer");
    // After the request's number, a throttling time and a count: for each rule a code and a text.
    let mut rest = &answer[12..];
    for rule in rules {
        let number = |at: usize| i16::from_be_bytes([rest[at], rest[at + 1]]);
        let length = usize::try_from(number(2)).unwrap_or(0); // -1: none
        assert_eq!(number(0), 0, "{rule:?}: {}", String::from_utf8_lossy(&rest[4..4 + length]));
        rest = &rest[4 + length..];
    }
}

fn text(request: &mut Vec<u8>, text: &str) {
    request.extend((text.len() as i16).to_be_bytes());
    request.extend(text.as_bytes());
}

//! Nexmark as dbsp circuits: the peer of the benchmark `nexmark`.
//!
//! Owns the circuits and their run. Events, digest and protocol are the files of the benchmark itself, so that both sides do the same.
//! Called by the benchmark as a process of its own per query; prints one JSON object.
//!
//! The circuits are for inputs that may retract rows, as Flowstone's plans are: nothing in them relies on events being append-only.
//! Text is reference-counted and memory is managed by the crate's mimalloc, as in what the crate's authors ship.

#[path = "../../src/nexmark/events.rs"]
mod events;
#[path = "../../src/nexmark/protocol.rs"]
mod protocol;
mod text;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dbsp::circuit::CircuitConfig;
use dbsp::operator::Max;
use dbsp::typed_batch::{IndexedZSetReader, SpineSnapshot};
use dbsp::utils::{Tup2, Tup3, Tup4, Tup5, Tup7, Tup8, Tup10};
use dbsp::{
    DBData, DBSPHandle, OrdIndexedZSet, OrdZSet, OutputHandle, RootCircuit, Runtime, ZSetHandle,
    ZWeight,
};

use crate::events::{Digest, Events, Tick};
use crate::protocol::{Mode, Request};
use crate::text::Text;

#[global_allocator]
static ALLOCATOR: dbsp::mimalloc::MiMalloc = dbsp::mimalloc::MiMalloc;

/// id, name, email, credit card, city, state, time, extra
type Person = Tup8<i64, Text, Text, Text, Text, Text, i64, Text>;
/// id, item, description, initial bid, reserve, time, expiry, seller, category, extra
type Auction = Tup10<i64, Text, Text, i64, i64, i64, i64, i64, i64, Text>;
/// auction, bidder, price, channel, url, time, extra
type Bid = Tup7<i64, i64, i64, Text, Text, i64, Text>;

type Rows<T> = OutputHandle<SpineSnapshot<OrdZSet<T>>>;
type Groups<K, V> = OutputHandle<SpineSnapshot<OrdIndexedZSet<K, V>>>;

/// The inputs a circuit reads.
#[derive(Clone, Default)]
struct Inputs {
    persons: Option<ZSetHandle<Person>>,
    auctions: Option<ZSetHandle<Auction>>,
    bids: Option<ZSetHandle<Bid>>,
}

/// The output of each query's circuit.
#[derive(Clone)]
enum Output {
    /// auction, bidder, price, time, extra
    Q0(Rows<Tup5<i64, i64, i64, i64, Text>>),
    /// name, city, state, auction
    Q3(Rows<Tup4<Text, Text, Text, i64>>),
    /// category; average
    Q4(Groups<i64, i128>),
    /// the auction; negated price, time, bidder, extra of the bid that wins
    Q9(Groups<Auction, Tup4<i64, i64, i64, Text>>),
    /// bidder, auction; time, price, channel, url, extra
    Q18(Groups<Tup2<i64, i64>, Tup5<i64, i64, Text, Text, Text>>),
}

/// The events of one tick as a circuit takes them.
#[derive(Default)]
struct Batch {
    persons: Vec<Tup2<Person, ZWeight>>,
    auctions: Vec<Tup2<Auction, ZWeight>>,
    bids: Vec<Tup2<Bid, ZWeight>>,
}

fn main() -> Result<()> {
    let request = Request::from_arguments(std::env::args().skip(1))?;
    let query = request.query.clone();
    let (mut handle, (inputs, output)) =
        Runtime::init_circuit(CircuitConfig::with_workers(1), move |circuit| {
            build(circuit, &query)
        })?;
    let idle = protocol::peak_mib()?;
    let mut events = Events::new(request.seed);
    let mut digest = Digest::default();
    let mut times = Vec::new();
    if request.mode == Mode::Time {
        let batches: Vec<Batch> = request
            .ticks()
            .map(|count| batch(&inputs, events.take(count)))
            .collect();
        for batch in batches {
            times.push(tick(&mut handle, &inputs, batch)?);
            output.take();
        }
    } else {
        for count in request.ticks() {
            let batch = batch(&inputs, events.take(count));
            times.push(tick(&mut handle, &inputs, batch)?);
            if request.mode == Mode::Check {
                output.add_to(&mut digest);
                digest.end_tick();
            } else {
                output.take();
            }
        }
    }
    println!("{}", protocol::answer(&times, idle, &digest)?);
    Ok(())
}

fn build(circuit: &mut RootCircuit, query: &str) -> Result<(Inputs, Output)> {
    let mut inputs = Inputs::default();
    let output = match query {
        "q0" => {
            let (bids, handle) = circuit.add_input_zset::<Bid>();
            inputs.bids = Some(handle);
            let output = bids.map(|Tup7(auction, bidder, price, _, _, time, extra)| {
                Tup5(*auction, *bidder, *price, *time, extra.clone())
            });
            Output::Q0(output.accumulate_output())
        }
        "q3" => {
            let (persons, handle) = circuit.add_input_zset::<Person>();
            inputs.persons = Some(handle);
            let (auctions, handle) = circuit.add_input_zset::<Auction>();
            inputs.auctions = Some(handle);
            let persons = persons
                .filter(|Tup8(_, _, _, _, _, state, _, _)| {
                    matches!(state.as_str(), "OR" | "ID" | "CA")
                })
                .map_index(|Tup8(id, name, _, _, city, state, _, _)| {
                    (*id, Tup3(name.clone(), city.clone(), state.clone()))
                });
            let auctions = auctions
                .filter(|Tup10(_, _, _, _, _, _, _, _, category, _)| *category == 10)
                .map_index(|Tup10(id, _, _, _, _, _, _, seller, _, _)| (*seller, *id));
            let output = auctions.join(&persons, |_, auction, Tup3(name, city, state)| {
                Tup4(name.clone(), city.clone(), state.clone(), *auction)
            });
            Output::Q3(output.accumulate_output())
        }
        "q4" => {
            let (auctions, handle) = circuit.add_input_zset::<Auction>();
            inputs.auctions = Some(handle);
            let (bids, handle) = circuit.add_input_zset::<Bid>();
            inputs.bids = Some(handle);
            let auctions =
                auctions.map_index(|Tup10(id, _, _, _, _, time, expires, _, category, _)| {
                    (*id, Tup3(*category, *time, *expires))
                });
            let bids = bids.map_index(|Tup7(auction, _, price, _, _, time, _)| {
                (*auction, Tup2(*price, *time))
            });
            let prices = auctions.join_index(
                &bids,
                |id, Tup3(category, from, until), Tup2(price, time)| {
                    (from <= time && time <= until).then_some((Tup2(*id, *category), *price))
                },
            );
            let output = prices
                .aggregate(Max)
                .map_index(|(Tup2(_, category), price)| (*category, *price))
                .aggregate_linear_postprocess(|price| Tup2(*price, 1_i64), average);
            Output::Q4(output.accumulate_output())
        }
        "q9" => {
            let (auctions, handle) = circuit.add_input_zset::<Auction>();
            inputs.auctions = Some(handle);
            let (bids, handle) = circuit.add_input_zset::<Bid>();
            inputs.bids = Some(handle);
            let auctions = auctions.map_index(|auction| (auction.0, auction.clone()));
            let bids = bids.map_index(|Tup7(auction, bidder, price, _, _, time, extra)| {
                // The order of these columns is the order of bids: the highest price first, then the earliest.
                (*auction, Tup4(-*price, *time, *bidder, extra.clone()))
            });
            let output = auctions
                .join_index(&bids, |_, auction, bid| {
                    (auction.5 <= bid.1 && bid.1 <= auction.6)
                        .then(|| (auction.clone(), bid.clone()))
                })
                .topk_asc(1);
            Output::Q9(output.accumulate_output())
        }
        "q18" => {
            let (bids, handle) = circuit.add_input_zset::<Bid>();
            inputs.bids = Some(handle);
            let output = bids
                .map_index(|Tup7(auction, bidder, price, channel, url, time, extra)| {
                    let bid = Tup5(*time, *price, channel.clone(), url.clone(), extra.clone());
                    (Tup2(*bidder, *auction), bid)
                })
                .topk_desc(1);
            Output::Q18(output.accumulate_output())
        }
        other => bail!("no query \"{other}\""),
    };
    Ok((inputs, output))
}

/// `avg(bigint)` as numeric with 18 digits after the point, rounded half away from zero, in units of its last digit.
fn average(Tup2(sum, count): Tup2<i64, i64>) -> i128 {
    let (scaled, count) = (i128::from(sum) * 10_i128.pow(18), i128::from(count));
    let (quotient, remainder) = (scaled / count, scaled % count);
    if remainder.abs() * 2 >= count {
        quotient + scaled.signum()
    } else {
        quotient
    }
}

/// The rows of a tick that the circuit reads.
fn batch(inputs: &Inputs, tick: Tick) -> Batch {
    let mut batch = Batch::default();
    if inputs.persons.is_some() {
        batch.persons = tick
            .persons
            .into_iter()
            .map(|p| Tup2(person(p), 1))
            .collect();
    }
    if inputs.auctions.is_some() {
        batch.auctions = tick
            .auctions
            .into_iter()
            .map(|a| Tup2(auction(a), 1))
            .collect();
    }
    if inputs.bids.is_some() {
        batch.bids = tick.bids.into_iter().map(|b| Tup2(bid(b), 1)).collect();
    }
    batch
}

fn person(p: events::Person) -> Person {
    Tup8(
        p.id,
        p.name.into(),
        p.email.into(),
        p.credit_card.into(),
        p.city.into(),
        p.state.into(),
        p.date_time,
        p.extra.into(),
    )
}

fn auction(a: events::Auction) -> Auction {
    Tup10(
        a.id,
        a.item_name.into(),
        a.description.into(),
        a.initial_bid,
        a.reserve,
        a.date_time,
        a.expires,
        a.seller,
        a.category,
        a.extra.into(),
    )
}

fn bid(b: events::Bid) -> Bid {
    Tup7(
        b.auction,
        b.bidder,
        b.price,
        b.channel.into(),
        b.url.into(),
        b.date_time,
        b.extra.into(),
    )
}

/// Feeds one tick and waits until its changes are in the output.
fn tick(handle: &mut DBSPHandle, inputs: &Inputs, mut batch: Batch) -> Result<Duration> {
    let begin = Instant::now();
    if let Some(persons) = &inputs.persons {
        persons.append(&mut batch.persons);
    }
    if let Some(auctions) = &inputs.auctions {
        auctions.append(&mut batch.auctions);
    }
    if let Some(bids) = &inputs.bids {
        bids.append(&mut batch.bids);
    }
    handle.transaction()?;
    Ok(begin.elapsed())
}

impl Output {
    /// Drops the changes of a tick.
    fn take(&self) {
        match self {
            Self::Q0(rows) => drop(rows.take_from_all()),
            Self::Q3(rows) => drop(rows.take_from_all()),
            Self::Q4(groups) => drop(groups.take_from_all()),
            Self::Q9(groups) => drop(groups.take_from_all()),
            Self::Q18(groups) => drop(groups.take_from_all()),
        }
    }

    /// Adds the changes of a tick to the digest.
    fn add_to(&self, digest: &mut Digest) {
        match self {
            Self::Q0(rows) => {
                add_rows(rows, digest, |Tup5(auction, bidder, price, time, extra)| {
                    format!("{auction}|{bidder}|{price}|{time}|{extra}")
                })
            }
            Self::Q3(rows) => add_rows(rows, digest, |Tup4(name, city, state, auction)| {
                format!("{name}|{city}|{state}|{auction}")
            }),
            Self::Q4(groups) => add_groups(groups, digest, |category, average| {
                format!("{category}|{average}")
            }),
            Self::Q9(groups) => add_groups(
                groups,
                digest,
                |Tup10(
                    id,
                    item,
                    description,
                    initial,
                    reserve,
                    time,
                    expires,
                    seller,
                    category,
                    extra,
                ),
                 Tup4(price, bid_time, bidder, bid_extra)| {
                    format!(
                        "{id}|{item}|{description}|{initial}|{reserve}|{time}|{expires}|{seller}|{category}|{extra}|{bidder}|{}|{bid_time}|{bid_extra}",
                        -price
                    )
                },
            ),
            Self::Q18(groups) => add_groups(
                groups,
                digest,
                |Tup2(bidder, auction), Tup5(time, price, channel, url, extra)| {
                    format!("{auction}|{bidder}|{price}|{channel}|{url}|{time}|{extra}")
                },
            ),
        }
    }
}

fn add_rows<T: DBData>(rows: &Rows<T>, digest: &mut Digest, text: impl Fn(&T) -> String) {
    for (row, (), weight) in rows.concat().consolidate().iter() {
        digest.add(&text(&row), weight);
    }
}

fn add_groups<K: DBData, V: DBData>(
    groups: &Groups<K, V>,
    digest: &mut Digest,
    text: impl Fn(&K, &V) -> String,
) {
    for (key, value, weight) in groups.concat().consolidate().iter() {
        digest.add(&text(&key, &value), weight);
    }
}

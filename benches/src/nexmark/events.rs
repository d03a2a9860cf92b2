//! Nexmark's events: persons, auctions and bids, 1 : 3 : 46 of every 50, as a function of a seed.
//!
//! Owns the generator and the digest of answers. Must not know any engine: this file is compiled into this crate and into the peer's
//! (`benches/peers`), so that both get the same events and their answers can be compared. Depends on nothing but the standard library.
//!
//! Invariants. Event `n` depends on the seed and `n` only. Event times differ, so that no order of bids has ties.

/// Events per group of proportions.
const GROUP: u64 = 50;
/// Auctions of a group; it has one person, and the rest are bids.
const AUCTIONS: u64 = 3;
/// The first id of persons and of auctions.
const FIRST_ID: u64 = 1000;
/// Microseconds between events.
const EVENT_US: u64 = 100;
/// 2015-07-15 00:00 UTC.
const START_US: u64 = 1_436_918_400_000_000;
/// The newest so many auctions are bid for.
const AUCTIONS_OPEN: u64 = 100;
/// The newest so many persons bid and sell.
const PERSONS_ACTIVE: u64 = 1000;
/// One person and one auction in so many is hot.
const HOT_EVERY: u64 = 100;
/// Categories of auctions, from 10 on.
const CATEGORIES: u64 = 5;

const FIRST_NAMES: [&str; 8] = [
    "Ada", "Bela", "Carl", "Dora", "Emil", "Fritz", "Grete", "Hugo",
];
const LAST_NAMES: [&str; 8] = [
    "Abel", "Brandt", "Curtius", "Dorn", "Engel", "Falk", "Graf", "Horn",
];
const CITIES: [(&str, &str); 10] = [
    ("Phoenix", "AZ"),
    ("Los Angeles", "CA"),
    ("San Francisco", "CA"),
    ("Boise", "ID"),
    ("Portland", "OR"),
    ("Bend", "OR"),
    ("Redmond", "WA"),
    ("Seattle", "WA"),
    ("Kent", "WA"),
    ("Cheyenne", "WY"),
];
const CHANNELS: [&str; 4] = ["Apple", "Baidu", "Facebook", "Google"];

/// Who sells and bids.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) credit_card: String,
    pub(crate) city: String,
    pub(crate) state: String,
    pub(crate) date_time: i64,
    pub(crate) extra: String,
}

/// What is sold. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub(crate) struct Auction {
    pub(crate) id: i64,
    pub(crate) item_name: String,
    pub(crate) description: String,
    pub(crate) initial_bid: i64,
    pub(crate) reserve: i64,
    pub(crate) date_time: i64,
    pub(crate) expires: i64,
    pub(crate) seller: i64,
    pub(crate) category: i64,
    pub(crate) extra: String,
}

/// What is offered for it.
#[derive(Clone, Debug)]
pub(crate) struct Bid {
    pub(crate) auction: i64,
    pub(crate) bidder: i64,
    pub(crate) price: i64,
    pub(crate) channel: String,
    pub(crate) url: String,
    pub(crate) date_time: i64,
    pub(crate) extra: String,
}

/// Consecutive events by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tick {
    pub(crate) persons: Vec<Person>,
    pub(crate) auctions: Vec<Auction>,
    pub(crate) bids: Vec<Bid>,
}

/// The events of a seed, from the first on.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    seed: u64,
    next: u64,
}

/// The random numbers of one event: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Below `bound`, which is not zero.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> Option<T> {
        let at = self.below(u64::try_from(values.len()).ok()?);
        values.get(usize::try_from(at).ok()?).copied()
    }

    /// Uniform in the logarithm, from 100 to about 10^8.
    fn price(&mut self) -> u64 {
        let magnitude = 100 << self.below(20);
        magnitude + self.below(magnitude)
    }

    fn letters(&mut self, length: u64) -> String {
        let mut text = String::new();
        let mut random = 0;
        for at in 0..length {
            if at % 8 == 0 {
                random = self.next();
            }
            let letter = u8::try_from(random % 26).unwrap_or(0);
            text.push(char::from(b'a' + letter));
            random >>= 8;
        }
        text
    }
}

/// Finalizer of splitmix64.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Ids and times are far below the limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Events {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, next: 0 }
    }

    /// The next `count` events.
    pub(crate) fn take(&mut self, count: u64) -> Tick {
        let mut tick = Tick::default();
        for number in self.next..self.next + count {
            let mut random = Random(mix(self.seed ^ mix(number)));
            let (group, place) = (number / GROUP, number % GROUP);
            let time = START_US + number * EVENT_US;
            if place == 0 {
                tick.persons.push(person(group, time, &mut random));
            } else if place <= AUCTIONS {
                tick.auctions
                    .push(auction(group, place - 1, time, &mut random));
            } else {
                tick.bids.push(bid(group, time, &mut random));
            }
        }
        self.next += count;
        tick
    }
}

fn person(group: u64, time: u64, random: &mut Random) -> Person {
    let first = random.one_of(&FIRST_NAMES).unwrap_or_default();
    let last = random.one_of(&LAST_NAMES).unwrap_or_default();
    let (city, state) = random.one_of(&CITIES).unwrap_or_default();
    Person {
        id: signed(FIRST_ID + group),
        name: format!("{first} {last}"),
        email: format!("{}@{}.com", random.letters(7), random.letters(5)),
        credit_card: format!("{:016}", random.below(10_000_000_000_000_000)),
        city: city.to_owned(),
        state: state.to_owned(),
        date_time: signed(time),
        extra: random.letters(100),
    }
}

fn auction(group: u64, place: u64, time: u64, random: &mut Random) -> Auction {
    let initial = random.price();
    // Twice as long, on average as long, as it takes until it is not among the newest any more.
    let lifetime = EVENT_US * (1 + random.below(2 * AUCTIONS_OPEN * GROUP / AUCTIONS));
    Auction {
        id: signed(FIRST_ID + group * AUCTIONS + place),
        item_name: random.letters(20),
        description: random.letters(100),
        initial_bid: signed(initial),
        reserve: signed(initial + random.price()),
        date_time: signed(time),
        expires: signed(time + lifetime),
        seller: signed(active_person(group, random)),
        category: signed(10 + random.below(CATEGORIES)),
        extra: random.letters(300),
    }
}

fn bid(group: u64, time: u64, random: &mut Random) -> Bid {
    // The auctions of a group come before its bids.
    let newest = (group + 1) * AUCTIONS - 1;
    let auction = if random.below(2) == 0 {
        newest / HOT_EVERY * HOT_EVERY
    } else {
        newest - random.below(AUCTIONS_OPEN.min(newest + 1))
    };
    let channel = if random.below(2) == 0 {
        random.one_of(&CHANNELS).unwrap_or_default().to_owned()
    } else {
        format!("channel-{}", random.below(10_000))
    };
    let url = format!(
        "https://www.example.com/{}/item.htm?query=1&channel_id={}",
        random.letters(5),
        random.below(1 << 30)
    );
    Bid {
        auction: signed(FIRST_ID + auction),
        bidder: signed(active_person(group, random)),
        price: signed(random.price()),
        channel,
        url,
        date_time: signed(time),
        extra: random.letters(20),
    }
}

/// Three in four times a hot one, else any of the newest.
fn active_person(group: u64, random: &mut Random) -> u64 {
    FIRST_ID
        + if random.below(4) == 0 {
            group - random.below(PERSONS_ACTIVE.min(group + 1))
        } else {
            group / HOT_EVERY * HOT_EVERY
        }
}

/// A digest of the changes of a result: equal for equal changes in each tick, in whatever order they come within it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Rows of the result.
    pub(crate) rows: i64,
    /// Changes, each row counted once per tick.
    pub(crate) changes: u64,
    /// Of the result at the end.
    pub(crate) content: u64,
    /// Of every tick's changes.
    pub(crate) history: u64,
    tick: u64,
}

impl Digest {
    /// A change of this tick: a row, its columns as text joined by `|`, numbers in units of their last digit, times in microseconds.
    pub(crate) fn add(&mut self, row: &str, weight: i64) {
        let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
        for byte in row.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3); // FNV-1a
        }
        let hash = mix(hash);
        let weighted = if weight < 0 {
            hash.wrapping_mul(weight.unsigned_abs()).wrapping_neg()
        } else {
            hash.wrapping_mul(weight.unsigned_abs())
        };
        self.rows += weight;
        self.changes += 1;
        self.tick = self.tick.wrapping_add(weighted);
        self.content = self.content.wrapping_add(weighted);
    }

    /// The tick is over.
    pub(crate) fn end_tick(&mut self) {
        self.history = mix(self.history ^ self.tick);
        self.tick = 0;
    }
}

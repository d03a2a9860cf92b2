//! AUCTION: organizations with users and accounts, who sell and bid.
//!
//! Tick 1 also makes the organizations, users and accounts. Every tick opens one auction and places bids on the auctions that are open;
//! an auction is open for ten ticks or ten seconds of generated time.

use std::ops::RangeInclusive;

use flowstone_types::SourceOp;

use super::rows::{Cell, Draw, Rows};

const ORGANIZATIONS: i64 = 100;
const USERS: i64 = 1000;
const ACCOUNTS: i64 = 500;
/// Ticks during which an auction takes bids.
const OPEN_TICKS: i64 = 10;
/// Bids per tick at most; also how many bid ids belong to a tick.
const BIDS_PER_TICK: i64 = 10;
/// How long after its start an auction says it ends.
const AUCTION_US: i64 = 10_000_000;

const FIRST: [&str; 12] = [
    "Acme",
    "Globex",
    "Initech",
    "Umbrella",
    "Hooli",
    "Stark",
    "Wayne",
    "Wonka",
    "Cyberdyne",
    "Soylent",
    "Tyrell",
    "Aperture",
];
const SECOND: [&str; 8] = [
    "Holdings", "Labs", "Partners", "Group", "Systems", "Works", "Trading", "Supply",
];
const NAMES: [&str; 16] = [
    "Ada", "Bela", "Chen", "Dara", "Emil", "Fay", "Gita", "Hugo", "Ines", "Juno", "Kofi", "Lena",
    "Mika", "Noor", "Otto", "Pia",
];
const ITEMS: [&str; 8] = [
    "Best Pizza in Town",
    "City Bar Crawl",
    "Custom Art",
    "Gift Basket",
    "Signed Memorabilia",
    "Box Seats",
    "Weekend Retreat",
    "Cooking Class",
];

/// Where generated time starts and how fast it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    /// Microseconds since the Unix epoch at tick 0.
    pub(crate) base_us: i64,
    /// Microseconds per tick.
    pub(crate) tick_us: i64,
}

impl Timeline {
    fn at(&self, tick: i64) -> i64 {
        self.base_us
            .saturating_add(self.tick_us.saturating_mul(tick))
    }
}

/// Writes the changes of `ticks` in `table`.
pub(crate) fn changes(
    seed: u64,
    timeline: Timeline,
    table: &str,
    ticks: RangeInclusive<u64>,
    rows: &mut Rows,
) {
    let first = *ticks.start() <= 1;
    match table {
        "organizations" if first => organizations(seed, rows),
        "users" if first => users(seed, rows),
        "accounts" if first => accounts(seed, rows),
        "auctions" => ticks
            .filter_map(tick_number)
            .for_each(|tick| auction(seed, timeline, tick, rows)),
        "bids" => ticks
            .filter_map(tick_number)
            .for_each(|tick| bids(seed, timeline, tick, rows)),
        _ => {}
    }
}

fn tick_number(tick: u64) -> Option<i64> {
    i64::try_from(tick).ok().filter(|tick| *tick > 0)
}

fn draw(seed: u64, salt: u64, number: i64) -> Draw {
    Draw::new(seed, salt, number.unsigned_abs())
}

fn organizations(seed: u64, rows: &mut Rows) {
    for id in 1..=ORGANIZATIONS {
        let mut draw = draw(seed, 1, id);
        let name = format!("{} {} {id}", draw.pick(&FIRST), draw.pick(&SECOND));
        rows.push(SourceOp::Insert, [Cell::from(id), Cell::from(name)]);
    }
}

fn users(seed: u64, rows: &mut Rows) {
    for id in 1..=USERS {
        let mut draw = draw(seed, 2, id);
        let organization = draw.between(1, ORGANIZATIONS);
        rows.push(
            SourceOp::Insert,
            [
                Cell::from(id),
                Cell::from(organization),
                Cell::from(format!("{}{id}", draw.pick(&NAMES))),
            ],
        );
    }
}

fn accounts(seed: u64, rows: &mut Rows) {
    for id in 1..=ACCOUNTS {
        let mut draw = draw(seed, 3, id);
        let organization = draw.between(1, ORGANIZATIONS);
        rows.push(
            SourceOp::Insert,
            [
                Cell::from(id),
                Cell::from(organization),
                Cell::from(draw.between(0, 10_000)),
            ],
        );
    }
}

fn auction(seed: u64, timeline: Timeline, tick: i64, rows: &mut Rows) {
    let mut draw = draw(seed, 4, tick);
    let seller = draw.between(1, USERS);
    let item = draw.pick(&ITEMS);
    let end = timeline.at(tick).saturating_add(AUCTION_US);
    rows.push(
        SourceOp::Insert,
        [
            Cell::from(tick),
            Cell::from(seller),
            Cell::from(item),
            Cell::from(end),
        ],
    );
}

fn bids(seed: u64, timeline: Timeline, tick: i64, rows: &mut Rows) {
    let mut draw = draw(seed, 5, tick);
    let count = draw.between(1, BIDS_PER_TICK);
    for number in 1..=count {
        let id = (tick - 1)
            .saturating_mul(BIDS_PER_TICK)
            .saturating_add(number);
        let buyer = draw.between(1, USERS);
        let auction = draw.between((tick - OPEN_TICKS + 1).max(1), tick);
        let amount = draw.between(1, 100);
        let row = [
            Cell::from(id),
            Cell::from(buyer),
            Cell::from(auction),
            Cell::from(amount),
            Cell::from(timeline.at(tick)),
        ];
        rows.push(SourceOp::Insert, row);
    }
}

//! TPCH: the eight tables of TPC-H at a scale factor, with orders that are replaced.
//!
//! Tick 1 makes everything. Each later tick takes one order with its lines away and puts another version of it in place; the orders take turns, so
//! what a tick retracts is known from its number alone. The distributions follow the specification's shape, not its letter: text is drawn from short
//! word lists.

use std::ops::{ControlFlow, RangeInclusive};

use flowstone_types::SourceOp;

use super::rows::{Cell, Draw, Rows};

const REGIONS: [&str; 5] = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"];
/// Nations in key order, each with its region.
const NATIONS: [(&str, i64); 25] = [
    ("ALGERIA", 0),
    ("ARGENTINA", 1),
    ("BRAZIL", 1),
    ("CANADA", 1),
    ("EGYPT", 4),
    ("ETHIOPIA", 0),
    ("FRANCE", 3),
    ("GERMANY", 3),
    ("INDIA", 2),
    ("INDONESIA", 2),
    ("IRAN", 4),
    ("IRAQ", 4),
    ("JAPAN", 2),
    ("JORDAN", 4),
    ("KENYA", 0),
    ("MOROCCO", 0),
    ("MOZAMBIQUE", 0),
    ("PERU", 1),
    ("CHINA", 2),
    ("ROMANIA", 3),
    ("SAUDI ARABIA", 4),
    ("VIETNAM", 2),
    ("RUSSIA", 3),
    ("UNITED KINGDOM", 3),
    ("UNITED STATES", 1),
];
const SEGMENTS: [&str; 5] = [
    "AUTOMOBILE",
    "BUILDING",
    "FURNITURE",
    "MACHINERY",
    "HOUSEHOLD",
];
const PRIORITIES: [&str; 5] = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"];
const INSTRUCTIONS: [&str; 4] = [
    "DELIVER IN PERSON",
    "COLLECT COD",
    "NONE",
    "TAKE BACK RETURN",
];
const MODES: [&str; 7] = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"];
const TYPES_1: [&str; 6] = ["STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO"];
const TYPES_2: [&str; 5] = ["ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED"];
const TYPES_3: [&str; 5] = ["TIN", "NICKEL", "BRASS", "STEEL", "COPPER"];
const CONTAINERS_1: [&str; 5] = ["SM", "LG", "MED", "JUMBO", "WRAP"];
const CONTAINERS_2: [&str; 8] = ["CASE", "BOX", "BAG", "JAR", "PKG", "PACK", "CAN", "DRUM"];
const COLORS: [&str; 12] = [
    "almond",
    "azure",
    "blush",
    "chocolate",
    "cornflower",
    "forest",
    "ghost",
    "green",
    "honeydew",
    "ivory",
    "lavender",
    "midnight",
];
const WORDS: [&str; 16] = [
    "furiously",
    "quickly",
    "carefully",
    "final",
    "special",
    "pending",
    "regular",
    "express",
    "deposits",
    "requests",
    "packages",
    "accounts",
    "sleep",
    "haggle",
    "wake",
    "nag",
];

/// 1992-01-01 in days since the Unix epoch.
const START_DATE: i64 = 8035;
/// Days of order dates: up to 1998-08-02.
const ORDER_DAYS: i64 = 2405;
/// 1995-06-17, the specification's CURRENTDATE.
const CURRENT_DATE: i64 = 9298;

/// How many rows there are at a scale factor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    suppliers: i64,
    parts: i64,
    customers: i64,
    orders: i64,
}

impl Sizes {
    /// The sizes at `scale_factor`; never less than a handful of rows, never more than scale factor 10 000.
    pub(crate) fn new(scale_factor: f64) -> Self {
        // Thousandths, so that the rest is integer arithmetic.
        #[expect(clippy::as_conversions, reason = "clamped into 1..=10^7 just before")]
        let thousandths = (scale_factor * 1000.0).clamp(1.0, 10_000_000.0).round() as i64;
        let scaled = |base: i64| (base * thousandths / 1000).max(10);
        Self {
            suppliers: scaled(10_000),
            parts: scaled(200_000),
            customers: scaled(150_000),
            orders: scaled(1_500_000),
        }
    }

    /// Steps through the orders so that every one has its turn once per round: a stride without common divisor.
    fn order_of_turn(&self, turn: i64) -> i64 {
        let mut stride = (self.orders * 61 / 100).max(1);
        while gcd(stride, self.orders) != 1 {
            stride += 1;
        }
        let number = i128::from(turn) * i128::from(stride) % i128::from(self.orders);
        i64::try_from(number).unwrap_or(0) + 1
    }
}

fn gcd(left: i64, right: i64) -> i64 {
    if right == 0 {
        left
    } else {
        gcd(right, left % right)
    }
}

/// Writes the changes of `ticks` in `table`. After some rows `full` is asked what to do; it may empty `rows`.
pub(crate) fn changes<E>(
    seed: u64,
    sizes: Sizes,
    table: &str,
    ticks: RangeInclusive<u64>,
    rows: &mut Rows,
    mut full: impl FnMut(&mut Rows) -> ControlFlow<E>,
) -> ControlFlow<E> {
    if *ticks.start() <= 1 && *ticks.end() >= 1 {
        let count = match table {
            "region" => 5,
            "nation" => 25,
            "supplier" => sizes.suppliers,
            "part" | "partsupp" => sizes.parts,
            "customer" => sizes.customers,
            "orders" | "lineitem" => sizes.orders,
            _ => 0,
        };
        for number in 1..=count {
            match table {
                "region" => region(seed, number - 1, rows),
                "nation" => nation(seed, number - 1, rows),
                "supplier" => supplier(seed, number, rows),
                "part" => part(seed, number, rows),
                "partsupp" => part_suppliers(seed, sizes, number, rows),
                "customer" => customer(seed, number, rows),
                "orders" => order(seed, sizes, number, 0, SourceOp::Insert, rows),
                _ => lines(seed, sizes, number, 0, SourceOp::Insert, rows),
            }
            full(rows)?;
        }
    }
    if !matches!(table, "orders" | "lineitem") {
        return ControlFlow::Continue(());
    }
    for tick in (*ticks.start()).max(2)..=*ticks.end() {
        let turn = i64::try_from(tick - 2).unwrap_or(0);
        let (number, version) = (sizes.order_of_turn(turn), turn / sizes.orders);
        let write = if table == "orders" { order } else { lines };
        write(seed, sizes, number, version, SourceOp::Delete, rows);
        write(seed, sizes, number, version + 1, SourceOp::Insert, rows);
        full(rows)?;
    }
    ControlFlow::Continue(())
}

fn draw(seed: u64, salt: u64, number: i64) -> Draw {
    Draw::new(seed, salt, number.unsigned_abs())
}

fn comment(draw: &mut Draw) -> String {
    format!(
        "{} {} {}",
        draw.pick(&WORDS),
        draw.pick(&WORDS),
        draw.pick(&WORDS)
    )
}

fn phone(draw: &mut Draw, nation: i64) -> String {
    format!(
        "{}-{}-{}-{}",
        nation + 10,
        draw.between(100, 999),
        draw.between(100, 999),
        draw.between(1000, 9999)
    )
}

fn region(seed: u64, key: i64, rows: &mut Rows) {
    let name = usize::try_from(key)
        .ok()
        .and_then(|index| REGIONS.get(index))
        .copied()
        .unwrap_or("");
    rows.push(
        SourceOp::Insert,
        [
            key.into(),
            name.into(),
            comment(&mut draw(seed, 10, key)).into(),
        ],
    );
}

fn nation(seed: u64, key: i64, rows: &mut Rows) {
    let (name, region) = usize::try_from(key)
        .ok()
        .and_then(|index| NATIONS.get(index))
        .copied()
        .unwrap_or(("", 0));
    rows.push(
        SourceOp::Insert,
        [
            key.into(),
            name.into(),
            region.into(),
            comment(&mut draw(seed, 11, key)).into(),
        ],
    );
}

fn supplier(seed: u64, key: i64, rows: &mut Rows) {
    let mut draw = draw(seed, 12, key);
    let nation = draw.between(0, 24);
    let row: [Cell; 7] = [
        key.into(),
        format!("Supplier#{key:09}").into(),
        comment(&mut draw).into(),
        nation.into(),
        phone(&mut draw, nation).into(),
        draw.between(-99_999, 999_999).into(),
        comment(&mut draw).into(),
    ];
    rows.push(SourceOp::Insert, row);
}

/// In cents, as the specification has it.
fn retail_price(part: i64) -> i64 {
    90_000 + (part / 10) % 20_001 + 100 * (part % 1000)
}

fn part(seed: u64, key: i64, rows: &mut Rows) {
    let mut draw = draw(seed, 13, key);
    let maker = draw.between(1, 5);
    let row: [Cell; 9] = [
        key.into(),
        format!(
            "{} {} {}",
            draw.pick(&COLORS),
            draw.pick(&COLORS),
            draw.pick(&COLORS)
        )
        .into(),
        format!("Manufacturer#{maker}").into(),
        format!("Brand#{maker}{}", draw.between(1, 5)).into(),
        format!(
            "{} {} {}",
            draw.pick(&TYPES_1),
            draw.pick(&TYPES_2),
            draw.pick(&TYPES_3)
        )
        .into(),
        draw.between(1, 50).into(),
        format!("{} {}", draw.pick(&CONTAINERS_1), draw.pick(&CONTAINERS_2)).into(),
        retail_price(key).into(),
        comment(&mut draw).into(),
    ];
    rows.push(SourceOp::Insert, row);
}

/// The `number`-th (0 to 3) supplier of a part.
fn supplier_of(sizes: Sizes, part: i64, number: i64) -> i64 {
    let suppliers = sizes.suppliers;
    (part + number * (suppliers / 4 + (part - 1) / suppliers)) % suppliers + 1
}

fn part_suppliers(seed: u64, sizes: Sizes, part: i64, rows: &mut Rows) {
    let mut draw = draw(seed, 14, part);
    let mut seen = Vec::with_capacity(4);
    for number in 0..4 {
        let supplier = supplier_of(sizes, part, number);
        // With few suppliers the specification's formula repeats itself; the key must not.
        if seen.contains(&supplier) {
            continue;
        }
        seen.push(supplier);
        let row = [
            part.into(),
            supplier.into(),
            draw.between(1, 9999).into(),
            draw.between(100, 100_000).into(),
            comment(&mut draw).into(),
        ];
        rows.push(SourceOp::Insert, row);
    }
}

fn customer(seed: u64, key: i64, rows: &mut Rows) {
    let mut draw = draw(seed, 15, key);
    let nation = draw.between(0, 24);
    let row: [Cell; 8] = [
        key.into(),
        format!("Customer#{key:09}").into(),
        comment(&mut draw).into(),
        nation.into(),
        phone(&mut draw, nation).into(),
        draw.between(-99_999, 999_999).into(),
        draw.pick(&SEGMENTS).into(),
        comment(&mut draw).into(),
    ];
    rows.push(SourceOp::Insert, row);
}

/// One line of an order.
struct Line {
    part: i64,
    supplier: i64,
    quantity: i64,
    /// Cents.
    price: i64,
    /// Hundredths.
    discount: i64,
    /// Hundredths.
    tax: i64,
    ship: i64,
    commit: i64,
    receipt: i64,
    rest: Draw,
}

/// The sparse key of the `number`-th order: eight of every 32 keys are used, as in the specification.
fn order_key(number: i64) -> i64 {
    let index = number - 1;
    (index / 8) * 32 + index % 8 + 1
}

/// The date and lines of one version of an order, and where its other columns are drawn from.
fn contents(seed: u64, sizes: Sizes, number: i64, version: i64) -> (i64, Vec<Line>, Draw) {
    let version_seed = Draw::new(seed, 16, version.unsigned_abs()).next();
    let mut draw = draw(version_seed, 17, number);
    let date = START_DATE + draw.between(0, ORDER_DAYS);
    let lines = (0..draw.between(1, 7))
        .map(|_| {
            let part = draw.between(1, sizes.parts);
            let quantity = draw.between(1, 50);
            let ship = date + draw.between(1, 121);
            Line {
                part,
                supplier: supplier_of(sizes, part, draw.between(0, 3)),
                quantity,
                price: quantity * retail_price(part),
                discount: draw.between(0, 10),
                tax: draw.between(0, 8),
                ship,
                commit: date + draw.between(30, 90),
                receipt: ship + draw.between(1, 30),
                rest: Draw::new(draw.next(), 18, 0),
            }
        })
        .collect();
    (date, lines, draw)
}

fn order(seed: u64, sizes: Sizes, number: i64, version: i64, op: SourceOp, rows: &mut Rows) {
    let (date, lines, mut draw) = contents(seed, sizes, number, version);
    // price * (1 + tax) * (1 - discount), summed, in cents.
    let total: i64 = lines
        .iter()
        .map(|line| line.price * (100 + line.tax) / 100 * (100 - line.discount) / 100)
        .sum();
    let shipped = lines
        .iter()
        .filter(|line| line.ship <= CURRENT_DATE)
        .count();
    let status = match shipped {
        0 => "O",
        all if all == lines.len() => "F",
        _ => "P",
    };
    // A third of the customers never order.
    let customer = draw.between(1, (sizes.customers / 3 * 2).max(1));
    let customer = customer + (customer - 1) / 2;
    let row: [Cell; 9] = [
        order_key(number).into(),
        customer.min(sizes.customers).into(),
        status.into(),
        total.into(),
        date.into(),
        draw.pick(&PRIORITIES).into(),
        format!("Clerk#{:09}", draw.between(1, 1000)).into(),
        0.into(),
        comment(&mut draw).into(),
    ];
    rows.push(op, row);
}

fn lines(seed: u64, sizes: Sizes, number: i64, version: i64, op: SourceOp, rows: &mut Rows) {
    let (_, lines, _) = contents(seed, sizes, number, version);
    for (line_number, mut line) in (1_i64..).zip(lines) {
        let returned = if line.receipt <= CURRENT_DATE {
            line.rest.pick(&["R", "A"])
        } else {
            "N"
        };
        let row: [Cell; 16] = [
            order_key(number).into(),
            line.part.into(),
            line.supplier.into(),
            line_number.into(),
            (line.quantity * 100).into(),
            line.price.into(),
            line.discount.into(),
            line.tax.into(),
            returned.into(),
            (if line.ship > CURRENT_DATE { "O" } else { "F" }).into(),
            line.ship.into(),
            line.commit.into(),
            line.receipt.into(),
            line.rest.pick(&INSTRUCTIONS).into(),
            line.rest.pick(&MODES).into(),
            comment(&mut line.rest).into(),
        ];
        rows.push(op, row);
    }
}

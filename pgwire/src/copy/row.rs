//! From bytes to the fields of a row, in each of the formats.
//!
//! Owns where fields and rows end. Must not know types, columns' names or what becomes of a row. Called by [`super::decoder`].
//!
//! Invariants. The data comes in pieces of any size, and where one ends does not matter: what was seen is kept as a state, never as bytes to be looked at again. A row's
//! fields are stored once, unescaped, one behind the other; of fields beyond the last column nothing is stored.

use super::BINARY_SIGNATURE;

/// Longest row, in bytes of its fields: PostgreSQL's limit.
const ROW_BYTES_MAX: usize = (1 << 30) - 1;
/// What ends the data before its end, alone in a line.
const END_MARKER: &[u8] = b"\\.";
/// Signature, flags and the length of the extension: how binary data begins.
const BINARY_HEADER_BYTES: usize = 19;

/// What is wrong with the bytes, whatever they should mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They do not follow the format.
    Format(String),
    /// A row is longer than rows may be.
    TooLong,
}

/// What the bytes looked at were the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing: more must come.
    Nothing,
    /// What opens binary data.
    Header,
    /// A row, over this many lines.
    Row { lines: u64 },
    /// The data: what follows is passed over.
    Data,
}

/// The fields of the row that is being read.
#[derive(Debug)]
pub(super) struct Row {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    columns: usize,
    /// Whether there is more than there are columns.
    extra: bool,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    end: usize,
    null: bool,
}

impl Row {
    pub(super) const fn new(columns: usize) -> Self {
        Self {
            bytes: Vec::new(),
            fields: Vec::new(),
            columns,
            extra: false,
        }
    }

    /// Whether the row has more fields than there are columns.
    pub(super) const fn has_extra(&self) -> bool {
        self.extra
    }

    /// Fields that are complete.
    pub(super) const fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field; `None` in it is NULL.
    pub(super) fn get(&self, index: usize) -> Option<Option<&[u8]>> {
        let field = self.fields.get(index)?;
        let start = index
            .checked_sub(1)
            .and_then(|before| self.fields.get(before))
            .map_or(0, |before| before.end);
        let bytes = self.bytes.get(start..field.end).unwrap_or_default();
        Some((!field.null).then_some(bytes))
    }

    /// Bytes of its fields.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Memory that it takes.
    pub(super) const fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes room for the next row. What a long one took is given back.
    pub(super) fn clear(&mut self) {
        const KEPT_BYTES: usize = 64 << 10;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.fields.clear();
        self.extra = false;
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.fields.len() >= self.columns {
            self.extra |= !bytes.is_empty();
            return Ok(());
        }
        if self.bytes.len() + bytes.len() > ROW_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The bytes of the field that is being read.
    fn field(&self) -> &[u8] {
        let start = self.fields.last().map_or(0, |before| before.end);
        self.bytes.get(start..).unwrap_or_default()
    }

    fn end_field(&mut self, null: bool) {
        if self.fields.len() < self.columns {
            let end = self.bytes.len();
            self.fields.push(Field { end, null });
        } else {
            self.extra = true;
        }
    }

    /// Ends the last field. A table without columns has lines without fields.
    fn end(&mut self, null: bool) {
        if self.columns > 0 {
            self.end_field(null);
        }
    }
}

/// The first bytes of something, as many as are needed to tell whether it is `what`.
#[derive(Debug, Default)]
struct Prefix {
    what: Vec<u8>,
    matched: usize,
    differs: bool,
}

impl Prefix {
    fn of(what: &[u8]) -> Self {
        Self {
            what: what.to_vec(),
            ..Self::default()
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.differs || bytes.is_empty() {
            return;
        }
        let rest = self.what.get(self.matched..).unwrap_or_default();
        if rest.starts_with(bytes) {
            self.matched += bytes.len();
        } else {
            self.differs = true;
        }
    }

    /// Whether it was that and nothing else; begins anew.
    fn take(&mut self) -> bool {
        let is_same = !self.differs && self.matched == self.what.len();
        (self.matched, self.differs) = (0, false);
        is_same
    }
}

/// Reads rows out of bytes.
#[derive(Debug)]
pub(super) enum Scanner {
    Text(TextScanner),
    Csv(CsvScanner),
    Binary(BinaryScanner),
}

impl Scanner {
    /// Reads up to the end of something, or of `data`. Returns how many bytes that took.
    pub(super) fn scan(&mut self, data: &[u8], row: &mut Row) -> Result<(usize, Ended), Fault> {
        match self {
            Self::Text(scanner) => scanner.scan(data, row),
            Self::Csv(scanner) => scanner.scan(data, row),
            Self::Binary(scanner) => scanner.scan(data, row),
        }
    }

    /// The data is at its end.
    pub(super) fn finish(&mut self, row: &mut Row) -> Result<Ended, Fault> {
        match self {
            Self::Text(scanner) if scanner.begun => scanner.finish(row),
            Self::Csv(scanner) if scanner.begun => scanner.finish(row),
            Self::Binary(scanner) if scanner.begun => {
                Err(Fault::Format("unexpected EOF in COPY data".to_owned()))
            }
            Self::Text(_) | Self::Csv(_) | Self::Binary(_) => Ok(Ended::Nothing),
        }
    }
}

/// Text format.
#[derive(Debug)]
pub(super) struct TextScanner {
    delimiter: u8,
    state: TextState,
    /// Whether a row has begun.
    begun: bool,
    /// Whether the last byte was a carriage return: the first half of a line's end, perhaps.
    carriage_return: bool,
    /// Whether the field, escaped as it is, is NULL.
    null: Prefix,
    /// Whether the line is the end marker.
    marker: Prefix,
}

#[derive(Clone, Copy, Debug)]
enum TextState {
    Plain,
    /// After a backslash.
    Escaped,
    /// After a backslash and so many octal digits.
    Octal {
        value: u8,
        digits: u8,
    },
    /// After a backslash, an x and so many hexadecimal digits.
    Hexadecimal {
        value: u8,
        digits: u8,
    },
}

impl TextScanner {
    pub(super) fn new(delimiter: u8, null: &str) -> Self {
        Self {
            delimiter,
            state: TextState::Plain,
            begun: false,
            carriage_return: false,
            null: Prefix::of(null.as_bytes()),
            marker: Prefix::of(END_MARKER),
        }
    }

    fn scan(&mut self, data: &[u8], row: &mut Row) -> Result<(usize, Ended), Fault> {
        let mut at = 0;
        while let Some(&byte) = data.get(at) {
            self.begun = true;
            match self.state {
                TextState::Plain => {
                    let rest = data.get(at..).unwrap_or_default();
                    let run = rest.iter().position(|byte| self.is_special(*byte));
                    let run = rest.get(..run.unwrap_or(rest.len())).unwrap_or_default();
                    if run.is_empty() {
                        at += 1;
                        if byte == b'\n' {
                            return Ok((at, self.end_row(row)));
                        }
                        self.special(byte, row)?;
                    } else {
                        at += run.len();
                        self.literally(row)?;
                        self.note(run);
                        row.push(run)?;
                    }
                }
                TextState::Escaped => {
                    at += 1;
                    self.note(&[byte]);
                    self.escaped(byte, row)?;
                }
                TextState::Octal { value, digits } => match digit(byte, 8) {
                    Some(digit) if digits < 3 => {
                        at += 1;
                        self.note(&[byte]);
                        let value = value.wrapping_mul(8).wrapping_add(digit);
                        let digits = digits + 1;
                        self.state = TextState::Octal { value, digits };
                    }
                    _ => self.end_number(row)?,
                },
                TextState::Hexadecimal { value, digits } => match digit(byte, 16) {
                    Some(digit) if digits < 2 => {
                        at += 1;
                        self.note(&[byte]);
                        let value = value.wrapping_mul(16).wrapping_add(digit);
                        let digits = digits + 1;
                        self.state = TextState::Hexadecimal { value, digits };
                    }
                    _ => self.end_number(row)?,
                },
            }
        }
        Ok((at, Ended::Nothing))
    }

    fn finish(&mut self, row: &mut Row) -> Result<Ended, Fault> {
        self.end_number(row)?;
        Ok(self.end_row(row))
    }

    const fn is_special(&self, byte: u8) -> bool {
        matches!(byte, b'\n' | b'\r' | b'\\') || byte == self.delimiter
    }

    /// Remembers bytes as they stand in the data.
    fn note(&mut self, raw: &[u8]) {
        self.null.push(raw);
        self.marker.push(raw);
    }

    /// A carriage return that no newline follows is one.
    fn literally(&mut self, row: &mut Row) -> Result<(), Fault> {
        if std::mem::take(&mut self.carriage_return) {
            self.note(b"\r");
            row.push(b"\r")?;
        }
        Ok(())
    }

    fn special(&mut self, byte: u8, row: &mut Row) -> Result<(), Fault> {
        self.literally(row)?;
        match byte {
            b'\r' => self.carriage_return = true,
            b'\\' => {
                self.note(&[byte]);
                self.state = TextState::Escaped;
            }
            _ => {
                self.marker.push(&[byte]);
                row.end_field(self.null.take());
            }
        }
        Ok(())
    }

    fn escaped(&mut self, code: u8, row: &mut Row) -> Result<(), Fault> {
        self.state = TextState::Plain;
        let value = match code {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'0'..=b'7' => {
                let value = code - b'0';
                self.state = TextState::Octal { value, digits: 1 };
                return Ok(());
            }
            b'x' => {
                let (value, digits) = (0, 0);
                self.state = TextState::Hexadecimal { value, digits };
                return Ok(());
            }
            other => other,
        };
        row.push(&[value])
    }

    /// What stood after a backslash is complete.
    fn end_number(&mut self, row: &mut Row) -> Result<(), Fault> {
        match std::mem::replace(&mut self.state, TextState::Plain) {
            // An x without digits stands for itself.
            TextState::Hexadecimal { digits: 0, .. } => row.push(b"x"),
            TextState::Octal { value, .. } | TextState::Hexadecimal { value, .. } => {
                row.push(&[value])
            }
            // A backslash before the end of the data stands for nothing.
            TextState::Plain | TextState::Escaped => Ok(()),
        }
    }

    fn end_row(&mut self, row: &mut Row) -> Ended {
        (self.begun, self.carriage_return) = (false, false);
        row.end(self.null.take());
        if self.marker.take() {
            Ended::Data
        } else {
            Ended::Row { lines: 1 }
        }
    }
}

/// The value of a digit in `radix`.
fn digit(byte: u8, radix: u32) -> Option<u8> {
    let digit = char::from(byte).to_digit(radix)?;
    u8::try_from(digit).ok()
}

/// CSV.
#[derive(Debug)]
pub(super) struct CsvScanner {
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: Vec<u8>,
    state: CsvState,
    /// Whether a row has begun.
    begun: bool,
    /// Whether there were quotes in the field.
    quoted: bool,
    /// Whether the last byte was a carriage return outside of quotes: the first half of a line's end, perhaps.
    carriage_return: bool,
    /// Whether the line is the end marker.
    marker: Prefix,
    lines: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CsvState {
    Outside,
    Inside,
    /// Inside, after what may escape the next byte or, if it is a quote, end the quotes.
    Escaped,
}

impl CsvScanner {
    pub(super) fn new(delimiter: u8, quote: u8, escape: u8, null: &str) -> Self {
        Self {
            delimiter,
            quote,
            escape,
            null: null.as_bytes().to_vec(),
            state: CsvState::Outside,
            begun: false,
            quoted: false,
            carriage_return: false,
            marker: Prefix::of(END_MARKER),
            lines: 1,
        }
    }

    fn scan(&mut self, data: &[u8], row: &mut Row) -> Result<(usize, Ended), Fault> {
        let mut at = 0;
        while let Some(&byte) = data.get(at) {
            self.begun = true;
            if self.state == CsvState::Escaped {
                if byte == self.quote || byte == self.escape {
                    at += 1;
                    row.push(&[byte])?;
                    self.state = CsvState::Inside;
                } else {
                    self.end_escape(row)?;
                }
                continue;
            }
            let rest = data.get(at..).unwrap_or_default();
            let run = rest.iter().position(|byte| self.is_special(*byte));
            let run = rest.get(..run.unwrap_or(rest.len())).unwrap_or_default();
            if !run.is_empty() {
                at += run.len();
                self.literally(row)?;
                self.marker.push(run);
                row.push(run)?;
                continue;
            }
            at += 1;
            if self.state == CsvState::Inside {
                self.inside(byte, row)?;
            } else if byte == b'\n' {
                return Ok((at, self.end_row(row)));
            } else {
                self.outside(byte, row)?;
            }
        }
        Ok((at, Ended::Nothing))
    }

    fn finish(&mut self, row: &mut Row) -> Result<Ended, Fault> {
        if self.state == CsvState::Escaped {
            self.end_escape(row)?;
        }
        if self.state == CsvState::Inside {
            return Err(Fault::Format("unterminated CSV quoted field".to_owned()));
        }
        Ok(self.end_row(row))
    }

    const fn is_special(&self, byte: u8) -> bool {
        match self.state {
            CsvState::Inside | CsvState::Escaped => {
                byte == self.quote || byte == self.escape || byte == b'\n'
            }
            CsvState::Outside => {
                matches!(byte, b'\n' | b'\r') || byte == self.quote || byte == self.delimiter
            }
        }
    }

    /// A carriage return that no newline follows is one.
    fn literally(&mut self, row: &mut Row) -> Result<(), Fault> {
        if std::mem::take(&mut self.carriage_return) {
            self.marker.push(b"\r");
            row.push(b"\r")?;
        }
        Ok(())
    }

    fn inside(&mut self, byte: u8, row: &mut Row) -> Result<(), Fault> {
        if byte == self.escape {
            self.state = CsvState::Escaped;
            return Ok(());
        }
        if byte == self.quote {
            self.state = CsvState::Outside;
            return Ok(());
        }
        self.lines += u64::from(byte == b'\n');
        row.push(&[byte])
    }

    fn outside(&mut self, byte: u8, row: &mut Row) -> Result<(), Fault> {
        self.literally(row)?;
        if byte == b'\r' {
            self.carriage_return = true;
            return Ok(());
        }
        self.marker.push(&[byte]);
        if byte == self.quote {
            (self.state, self.quoted) = (CsvState::Inside, true);
        } else {
            let null = self.is_null(row);
            row.end_field(null);
        }
        Ok(())
    }

    /// What might have been escaped is not.
    fn end_escape(&mut self, row: &mut Row) -> Result<(), Fault> {
        if self.escape == self.quote {
            self.state = CsvState::Outside;
            return Ok(());
        }
        self.state = CsvState::Inside;
        row.push(&[self.escape])
    }

    /// Whether the field that ends is NULL: only if it was not quoted.
    fn is_null(&mut self, row: &Row) -> bool {
        !std::mem::take(&mut self.quoted) && row.field() == self.null
    }

    fn end_row(&mut self, row: &mut Row) -> Ended {
        (self.begun, self.carriage_return) = (false, false);
        let null = self.is_null(row);
        row.end(null);
        let lines = std::mem::replace(&mut self.lines, 1);
        if self.marker.take() {
            Ended::Data
        } else {
            Ended::Row { lines }
        }
    }
}

/// Binary format.
#[derive(Debug)]
pub(super) struct BinaryScanner {
    state: BinaryState,
    /// The bytes of a number, or of the header, that have come.
    number: Vec<u8>,
    /// Whether something has begun that is not complete.
    begun: bool,
}

#[derive(Clone, Copy, Debug)]
enum BinaryState {
    Header,
    /// The header's extension: so many bytes of it are still to come.
    Extension(usize),
    Count,
    /// So many fields are still to come.
    Length(usize),
    /// So many bytes of a field, then so many fields.
    Field(usize, usize),
}

impl BinaryScanner {
    pub(super) const fn new() -> Self {
        Self {
            state: BinaryState::Header,
            number: Vec::new(),
            begun: false,
        }
    }

    fn scan(&mut self, data: &[u8], row: &mut Row) -> Result<(usize, Ended), Fault> {
        let mut at = 0;
        while at < data.len() {
            self.begun = true;
            let rest = data.get(at..).unwrap_or_default();
            let (taken, ended) = self.step(rest, row)?;
            at += taken;
            if ended != Ended::Nothing {
                self.begun = false;
                return Ok((at, ended));
            }
        }
        Ok((at, Ended::Nothing))
    }

    fn step(&mut self, data: &[u8], row: &mut Row) -> Result<(usize, Ended), Fault> {
        match self.state {
            BinaryState::Header => {
                let (taken, header) = self.fixed::<BINARY_HEADER_BYTES>(data);
                let Some(header) = header else {
                    return Ok((taken, Ended::Nothing));
                };
                if !header.starts_with(BINARY_SIGNATURE) {
                    return Err(Fault::Format(
                        "COPY file signature not recognized".to_owned(),
                    ));
                }
                let length = header.last_chunk::<4>().copied().unwrap_or_default();
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                Ok((taken, self.extension(length)))
            }
            BinaryState::Extension(left) => {
                let taken = left.min(data.len());
                Ok((taken, self.extension(left - taken)))
            }
            BinaryState::Count => {
                let (taken, count) = self.fixed::<2>(data);
                match count.map(i16::from_be_bytes) {
                    None => Ok((taken, Ended::Nothing)),
                    Some(-1) => Ok((taken, Ended::Data)),
                    Some(count) => self.count(count, row).map(|ended| (taken, ended)),
                }
            }
            BinaryState::Length(fields) => {
                let (taken, length) = self.fixed::<4>(data);
                match length.map(i32::from_be_bytes) {
                    None => Ok((taken, Ended::Nothing)),
                    Some(-1) => Ok((taken, self.end_field(true, fields, row))),
                    Some(length) => {
                        let length = usize::try_from(length)
                            .map_err(|_| Fault::Format("invalid field size".to_owned()))?;
                        self.state = BinaryState::Field(length, fields);
                        if length == 0 {
                            return Ok((taken, self.end_field(false, fields, row)));
                        }
                        Ok((taken, Ended::Nothing))
                    }
                }
            }
            BinaryState::Field(left, fields) => {
                let (value, _) = data.split_at(left.min(data.len()));
                row.push(value)?;
                let left = left - value.len();
                self.state = BinaryState::Field(left, fields);
                let ended = if left == 0 {
                    self.end_field(false, fields, row)
                } else {
                    Ended::Nothing
                };
                Ok((value.len(), ended))
            }
        }
    }

    /// Collects `N` bytes. Returns how many were taken, and all once they are there.
    fn fixed<const N: usize>(&mut self, data: &[u8]) -> (usize, Option<[u8; N]>) {
        let (taken, _) = data.split_at((N - self.number.len()).min(data.len()));
        self.number.extend_from_slice(taken);
        let complete = self.number.first_chunk::<N>().copied();
        if complete.is_some() {
            self.number.clear();
        }
        (taken.len(), complete)
    }

    fn extension(&mut self, left: usize) -> Ended {
        if left > 0 {
            self.state = BinaryState::Extension(left);
            return Ended::Nothing;
        }
        self.state = BinaryState::Count;
        Ended::Header
    }

    fn count(&mut self, count: i16, row: &Row) -> Result<Ended, Fault> {
        if usize::try_from(count).ok() != Some(row.columns) {
            return Err(Fault::Format(format!(
                "row field count is {count}, expected {}",
                row.columns
            )));
        }
        if row.columns == 0 {
            return Ok(Ended::Row { lines: 1 });
        }
        self.state = BinaryState::Length(row.columns);
        Ok(Ended::Nothing)
    }

    /// `fields`: this one and those that are still to come.
    fn end_field(&mut self, null: bool, fields: usize, row: &mut Row) -> Ended {
        row.end_field(null);
        if fields > 1 {
            self.state = BinaryState::Length(fields - 1);
            return Ended::Nothing;
        }
        self.state = BinaryState::Count;
        Ended::Row { lines: 1 }
    }
}

//! Where each operator of a text begins and ends, by PostgreSQL's rules.
//!
//! `sqlparser` reads operators one character after the other and knows a list of them; PostgreSQL takes the longest run of operator characters, takes signs
//! off its end (`a->-1` is `a -> -1`, but `a @-1` is one operator), and ends it where a comment begins. So the operators are read here, and the tokenizer
//! sees blanks in their place.
//!
//! Owns the lexical structure of a text as far as it decides where operators are: strings, quoted identifiers, comments, numbers. Must not know what operators
//! mean. Called for every text, before anything else.
//!
//! Invariant. [`read`] fails if the two readings do not fit together: no operator gets lost, and none comes out of a literal.

use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::dialect::FlowstoneDialect;

/// What is wrong with a text: a message of `sqlparser`'s tokenizer or ours, and where.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) message: String,
    pub(super) location: Location,
}

struct Operator {
    token: Token,
    span: Span,
}

/// The tokens of `text`.
pub(super) fn read(text: &str) -> Result<Vec<TokenWithSpan>, Malformed> {
    let mut scan = Scan::new(text);
    scan.run()?;
    let tokens = Tokenizer::new(&FlowstoneDialect::new(0), &scan.without)
        .tokenize_with_location()
        .map_err(|error| Malformed {
            message: error.message,
            location: error.location,
        })?;
    insert(tokens, scan.operators)
}

/// Puts the operators where their blanks are.
fn insert(
    tokens: Vec<TokenWithSpan>,
    operators: Vec<Operator>,
) -> Result<Vec<TokenWithSpan>, Malformed> {
    let mut operators = operators.into_iter().peekable();
    let mut all = Vec::with_capacity(tokens.len());
    // Where the operator ends whose blanks are passed over.
    let mut end = Location { line: 0, column: 0 };
    for token in tokens {
        let start = token.span.start;
        if start < end {
            continue;
        }
        let lost = operators
            .peek()
            .filter(|operator| operator.span.start < start);
        if let Some(lost) = lost {
            return Err(misread(lost));
        }
        match operators.next_if(|operator| {
            operator.span.start == start && matches!(token.token, Token::Whitespace(_))
        }) {
            Some(Operator { token, span }) => {
                end = span.end;
                all.push(TokenWithSpan { token, span });
            }
            None => all.push(token),
        }
    }
    match operators.next() {
        Some(lost) => Err(misread(&lost)),
        None => Ok(all),
    }
}

fn misread(operator: &Operator) -> Malformed {
    Malformed {
        message: format!("operator {} is not where it seems to be", operator.token),
        location: operator.span.start,
    }
}

const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b'*'
            | b'/'
            | b'<'
            | b'>'
            | b'='
            | b'~'
            | b'!'
            | b'@'
            | b'#'
            | b'%'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
    )
}

/// How much of a run of operator characters is its first operator: a sign at the end belongs to what follows, unless the operator has a character in it that
/// no operator of standard SQL has.
fn first_length(run: &[u8]) -> usize {
    let special = |byte: &u8| {
        matches!(
            byte,
            b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|' | b'`' | b'?'
        )
    };
    if run.iter().any(special) {
        return run.len();
    }
    let signs = run
        .iter()
        .rev()
        .take_while(|byte| matches!(byte, b'+' | b'-'))
        .count();
    (run.len() - signs).max(1)
}

fn token_of(operator: &str) -> Token {
    match operator {
        "+" => Token::Plus,
        "-" => Token::Minus,
        "*" => Token::Mul,
        "/" => Token::Div,
        "%" => Token::Mod,
        "^" => Token::Caret,
        "<" => Token::Lt,
        ">" => Token::Gt,
        "=" => Token::Eq,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "<>" | "!=" => Token::Neq,
        "=>" => Token::RArrow,
        "||" => Token::StringConcat,
        "->" => Token::Arrow,
        "->>" => Token::LongArrow,
        "#>" => Token::HashArrow,
        "#>>" => Token::HashLongArrow,
        "#-" => Token::HashMinus,
        "@>" => Token::AtArrow,
        "<@" => Token::ArrowAt,
        "@?" => Token::AtQuestion,
        "@@" => Token::AtAt,
        "?" => Token::Question,
        "?|" => Token::QuestionPipe,
        "?&" => Token::QuestionAnd,
        "~" => Token::Tilde,
        "~*" => Token::TildeAsterisk,
        "!~" => Token::ExclamationMarkTilde,
        "!~*" => Token::ExclamationMarkTildeAsterisk,
        "~~" => Token::DoubleTilde,
        "~~*" => Token::DoubleTildeAsterisk,
        "!~~" => Token::ExclamationMarkDoubleTilde,
        "!~~*" => Token::ExclamationMarkDoubleTildeAsterisk,
        "&" => Token::Ampersand,
        "|" => Token::Pipe,
        "#" => Token::Sharp,
        "<<" => Token::ShiftLeft,
        ">>" => Token::ShiftRight,
        "&&" => Token::Overlap,
        "^@" => Token::CaretAt,
        "@" => Token::AtSign,
        "|/" => Token::PGSquareRoot,
        "||/" => Token::PGCubeRoot,
        "!!" => Token::DoubleExclamationMark,
        other => Token::CustomBinaryOperator(other.to_owned()),
    }
}

/// A place in a text, and what was found before it. Everything that decides where an operator is, is ASCII.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    column: u64,
    operators: Vec<Operator>,
    /// The text up to `copied`, blanks in place of operators.
    without: String,
    copied: usize,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
            column: 1,
            operators: Vec::new(),
            without: String::with_capacity(text.len()),
            copied: 0,
        }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    const fn location(&self) -> Location {
        Location {
            line: self.line,
            column: self.column,
        }
    }

    /// Goes past the next byte.
    fn step(&mut self) {
        match self.byte(0) {
            Some(b'\n') => {
                self.line += 1;
                self.column = 1;
            }
            // The rest of a character of several bytes.
            Some(0x80..=0xBF) => {}
            _ => self.column += 1,
        }
        self.at += 1;
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    fn steps_while(&mut self, holds: impl Fn(char) -> bool) {
        while let Some(letter) = self.letter()
            && holds(letter)
        {
            self.steps(letter.len_utf8());
        }
    }

    fn letter(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn run(&mut self) -> Result<(), Malformed> {
        while let Some(byte) = self.byte(0) {
            match (byte, self.byte(1)) {
                (b'\'', _) => self.quoted(b'\'', false),
                (b'"', _) => self.quoted(b'"', false),
                (b'$', _) => self.dollar(),
                (b'-', Some(b'-')) => {
                    self.steps_while(|letter| letter != '\n' && letter != '\r');
                }
                (b'/', Some(b'*')) => self.comment(),
                (b'0'..=b'9', _) | (b'.', Some(b'0'..=b'9')) => self.number(),
                (b':', Some(b':' | b'=')) => self.steps(2),
                _ if is_operator(byte) => self.operator(),
                _ if self.letter().is_some_and(is_word_start) => self.word()?,
                _ => self.step(),
            }
        }
        let rest = self.text.get(self.copied..).unwrap_or_default();
        self.without.push_str(rest);
        Ok(())
    }

    /// Goes past a quoted text, or to the end if it does not end.
    fn quoted(&mut self, quote: u8, backslashes: bool) {
        self.step();
        while let Some(byte) = self.byte(0) {
            if byte == b'\\' && backslashes {
                self.steps(2);
            } else if byte != quote {
                self.step();
            } else if self.byte(1) == Some(quote) {
                self.steps(2);
            } else {
                return self.step();
            }
        }
    }

    /// Goes past a dollar-quoted text, or past the dollar sign of a parameter and what follows it.
    fn dollar(&mut self) {
        let start = self.at;
        self.step();
        self.steps_while(|letter| letter.is_alphanumeric() || letter == '_');
        if self.byte(0) != Some(b'$') {
            return;
        }
        self.step();
        let tag = self.text.get(start..self.at).unwrap_or_default();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.find(tag).map_or(rest.len(), |end| end + tag.len());
        self.steps(length);
    }

    fn comment(&mut self) {
        self.steps(2);
        let mut open = 1_usize;
        while open > 0 && self.byte(0).is_some() {
            match (self.byte(0), self.byte(1)) {
                (Some(b'/'), Some(b'*')) => {
                    open += 1;
                    self.steps(2);
                }
                (Some(b'*'), Some(b'/')) => {
                    open -= 1;
                    self.steps(2);
                }
                _ => self.step(),
            }
        }
    }

    /// Goes past a number; a sign belongs to it between `e` and digits.
    fn number(&mut self) {
        let digit = |letter: char| letter.is_ascii_digit() || letter == '_';
        self.steps_while(digit);
        if self.byte(0) == Some(b'.') {
            self.step();
            self.steps_while(digit);
        }
        if matches!(self.byte(0), Some(b'e' | b'E')) {
            let signed = usize::from(matches!(self.byte(1), Some(b'+' | b'-')));
            if self
                .byte(1 + signed)
                .is_some_and(|byte| byte.is_ascii_digit())
            {
                self.steps(1 + signed);
                self.steps_while(digit);
            }
        }
    }

    /// Goes past a word, or past the literal whose kind it says.
    fn word(&mut self) -> Result<(), Malformed> {
        match (self.byte(0), self.byte(1), self.byte(2)) {
            (Some(b'e' | b'E' | b'x' | b'X'), Some(b'\''), _) => {
                self.step();
                self.quoted(b'\'', true);
            }
            (Some(b'b' | b'B' | b'n' | b'N'), Some(b'\''), _) => {
                self.step();
                self.quoted(b'\'', false);
            }
            (Some(b'u' | b'U'), Some(b'&'), Some(b'\'')) => {
                self.steps(2);
                self.quoted(b'\'', false);
            }
            (Some(b'u' | b'U'), Some(b'&'), Some(b'"')) => {
                return Err(Malformed {
                    message: UNICODE_IDENTIFIER.to_owned(),
                    location: self.location(),
                });
            }
            _ => self.steps_while(is_word_part),
        }
        Ok(())
    }

    fn operator(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let comment = |pair: &[u8]| pair == b"--" || pair == b"/*";
        let length = rest.iter().take_while(|byte| is_operator(**byte)).count();
        let run = rest.get(..length).unwrap_or_default();
        let length = run.windows(2).position(comment).unwrap_or(length);
        let length = first_length(run.get(..length).unwrap_or_default());
        let (from, start) = (self.at, self.location());
        self.steps(length);
        let before = self.text.get(self.copied..from).unwrap_or_default();
        self.without.push_str(before);
        self.without.extend(std::iter::repeat_n(' ', length));
        self.copied = self.at;
        let operator = self.text.get(from..self.at).unwrap_or_default();
        self.operators.push(Operator {
            token: token_of(operator),
            span: Span::new(start, self.location()),
        });
    }
}

/// What is wrong with `U&"…"`.
pub(super) const UNICODE_IDENTIFIER: &str = "identifiers with Unicode escapes are not supported";

fn is_word_start(letter: char) -> bool {
    letter.is_alphabetic() || letter == '_' || !letter.is_ascii() && !letter.is_whitespace()
}

fn is_word_part(letter: char) -> bool {
    is_word_start(letter) || letter.is_ascii_digit() || letter == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of a text without its blanks and comments, written next to each other.
    fn tokens(text: &str) -> String {
        let tokens = read(text).unwrap();
        let shown = tokens.iter().filter_map(|token| match &token.token {
            Token::Whitespace(_) => None,
            other => Some(other.to_string()),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_operator_ends_where_postgresql_ends_it() {
        for (text, expected) in [
            ("a->-1", "a -> - 1"),
            ("a->>-1", "a ->> - 1"),
            ("a*-1", "a * - 1"),
            ("a=-1", "a = - 1"),
            ("a<>-1", "a <> - 1"),
            ("a>=+-1", "a >= + - 1"),
            ("a+-1", "a + - 1"),
            ("a @-1", "a @- 1"),
            ("a||-1", "a ||- 1"),
            ("a^-1", "a ^- 1"),
            ("a!=-1", "a !=- 1"),
            ("a=@b", "a =@ b"),
            ("a*@b", "a *@ b"),
            ("a==b", "a == b"),
            ("a<=>b", "a <=> b"),
            ("a--b\n-c", "a - c"),
            ("a|--b\n|c", "a | | c"),
            ("a+/*b*/+c", "a + + c"),
            ("a||/*'*/b", "a || b"),
            ("a*/* /* */ */-b", "a * - b"),
            ("1e-5-1e+5-1e", "1e-5 - 1e+5 - 1 e"),
            (".5e-3-x", ".5e-3 - x"),
            ("a::int-b", "a :: int - b"),
            ("f(a:=-1, b=>-2)", "f ( a := - 1 , b => - 2 )"),
            ("count(*)", "count ( * )"),
            ("t.*", "t . *"),
            ("'a->-1'", "'a->-1'"),
            ("\"a->-1\"", "\"a->-1\""),
            ("a$b$-c$b$", "a$b$ - c$b$"),
            ("$1-$2", "$1 - $2"),
            ("é-ü", "é - ü"),
            ("a\u{a0}-\u{a0}b", "a - b"),
        ] {
            assert_eq!(tokens(text), expected, "{text}");
        }
    }

    #[test]
    fn what_looks_like_an_operator_in_a_literal_is_none() {
        for text in [
            "'a''->-'",
            r"E'a\'->-'",
            r"e'\\'",
            "N'->-'",
            "$$->-'$$",
            "$a$->-$$'$a$",
            "U&'->-'",
            "X'->-'",
        ] {
            let found = read(&format!("{text}->-1")).unwrap();
            let found: Vec<&Token> = found.iter().map(|token| &token.token).collect();
            assert_eq!(found.len(), 4, "{text}: {found:?}");
            assert_eq!(found.get(1), Some(&&Token::Arrow), "{text}");
        }
    }

    #[test]
    fn tokens_stay_where_they_are() {
        let text = "a\n  ->-1 <> 'é'||b";
        let found = read(text).unwrap();
        let places: Vec<(String, u64, u64, u64)> = found
            .iter()
            .filter(|token| !matches!(token.token, Token::Whitespace(_)))
            .map(|token| {
                let Span { start, end } = token.span;
                (
                    token.token.to_string(),
                    start.line,
                    start.column,
                    end.column,
                )
            })
            .collect();
        let expected = [
            ("a", 1, 1, 2),
            ("->", 2, 3, 5),
            ("-", 2, 5, 6),
            ("1", 2, 6, 7),
            ("<>", 2, 8, 10),
            ("'é'", 2, 11, 14),
            ("||", 2, 14, 16),
            ("b", 2, 16, 17),
        ];
        let expected =
            expected.map(|(token, line, start, end)| (token.to_owned(), line, start, end));
        assert_eq!(places, expected);
    }
}

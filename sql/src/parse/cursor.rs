//! A place in a token stream, and everything that reads from there: words, names, literals, option lists, and the hand-over to `sqlparser`.
//!
//! Owns positions and the wording of syntax errors. Must not know any statement.
//!
//! Invariant. Whatever fails, the error's position is the first character of a token of the whole query string, or one past its end.

use std::time::Duration;

use flowstone_types::SqlType;
use sqlparser::ast::{Expr, Query};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Word};

use super::dialect::FlowstoneDialect;
use super::types::parse_type;
use super::{depth, operators, sets};
use crate::ast::{Ident, Name, OptionValue, WithOption};
use crate::catalog::names::check_identifier;
use crate::error::{Error, ErrorKind};

/// How deep expressions and queries may nest.
const RECURSION_LIMIT: usize = 128;

/// Words that cannot be the name of anything unless they are quoted. Those of PostgreSQL that are reserved, and as column or table names.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// A query string and its tokens.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    /// Of each line: byte offset and character offset of its start.
    lines: Vec<(usize, usize)>,
    /// Characters in all.
    chars: usize,
    pub(super) tokens: Vec<TokenWithSpan>,
}

impl<'a> Source<'a> {
    /// Reads the tokens of `text`.
    ///
    /// # Errors
    /// [`ErrorKind::Syntax`] at a literal or comment that does not end, or a character that starts nothing; [`ErrorKind::TooComplex`].
    pub(super) fn new(text: &'a str) -> Result<Self, Error> {
        let mut lines = vec![(0, 0)];
        let mut chars = 0;
        for (byte, c) in text.char_indices() {
            chars += 1;
            if c == '\n' {
                lines.push((byte + 1, chars));
            }
        }
        let mut source = Self {
            text,
            lines,
            chars,
            tokens: Vec::new(),
        };
        source.tokens = operators::read(text).map_err(|malformed| {
            let operators::Malformed { message, location } = malformed;
            let error = if message == operators::UNICODE_IDENTIFIER {
                Error::unsupported(message)
            } else if message.to_ascii_lowercase().starts_with("unterminated") {
                Error::syntax(lower_first(&message))
            } else {
                Error::syntax(format!("syntax error: {}", lower_first(&message)))
            };
            error.at(source.position(location))
        })?;
        for token in &source.tokens {
            if let Token::Word(word) = &token.token {
                check_identifier(&word.value)
                    .map_err(|error| error.at(source.position(token.span.start)))?;
            }
        }
        if let Some(token) =
            depth::too_deep(&source.tokens).and_then(|index| source.tokens.get(index))
        {
            let error = Error::new(ErrorKind::TooComplex, "statement is nested too deeply");
            return Err(error.at(source.position(token.span.start)));
        }
        Ok(source)
    }

    /// Characters from 1.
    pub(super) fn position(&self, location: Location) -> usize {
        let line = usize::try_from(location.line).unwrap_or(0);
        let column = usize::try_from(location.column).unwrap_or(0);
        match line.checked_sub(1).and_then(|line| self.lines.get(line)) {
            Some((_, start)) => start + column,
            None => self.chars + 1,
        }
    }

    fn byte(&self, location: Location) -> usize {
        let line = usize::try_from(location.line).unwrap_or(0);
        let column = usize::try_from(location.column).unwrap_or(0);
        let Some((start, _)) = line.checked_sub(1).and_then(|line| self.lines.get(line)) else {
            return self.text.len();
        };
        let rest = self.text.get(*start..).unwrap_or_default();
        rest.char_indices()
            .nth(column.saturating_sub(1))
            .map_or(self.text.len(), |(offset, _)| start + offset)
    }

    /// The text between two locations.
    pub(super) fn slice(&self, start: Location, end: Location) -> &'a str {
        self.text
            .get(self.byte(start)..self.byte(end))
            .unwrap_or_default()
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

/// A place in the tokens of one statement.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) source: &'a Source<'a>,
    /// The next token, as an index into all tokens.
    next: usize,
    /// One past the statement's last token.
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(source: &'a Source<'a>, start: usize, end: usize) -> Self {
        Self {
            source,
            next: start,
            end,
        }
    }

    /// Index of the `n`th token from here that is not blank.
    fn index(&self, n: usize) -> usize {
        let mut index = self.next;
        let mut left = n;
        while index < self.end {
            let blank = self
                .source
                .tokens
                .get(index)
                .is_none_or(|token| matches!(token.token, Token::Whitespace(_)));
            if !blank {
                if left == 0 {
                    return index;
                }
                left -= 1;
            }
            index += 1;
        }
        self.end
    }

    fn at(&self, index: usize) -> &'a Token {
        const END: &Token = &Token::EOF;
        if index >= self.end {
            END
        } else {
            self.source
                .tokens
                .get(index)
                .map_or(END, |token| &token.token)
        }
    }

    /// The `n`th token from here; [`Token::EOF`] past the statement's end.
    pub(super) fn peek(&self, n: usize) -> &'a Token {
        self.at(self.index(n))
    }

    /// Goes past the next token.
    pub(super) fn skip(&mut self) {
        self.next = (self.index(0) + 1).min(self.end);
    }

    /// Whether the statement ends here.
    pub(super) fn is_end(&self) -> bool {
        *self.peek(0) == Token::EOF
    }

    /// Where the next token is: characters from 1.
    pub(super) fn position(&self) -> usize {
        self.position_of(self.index(0))
    }

    fn position_of(&self, index: usize) -> usize {
        self.source
            .tokens
            .get(index)
            .map_or(self.source.chars + 1, |token| {
                self.source.position(token.span.start)
            })
    }

    /// Where the next token starts and where the last one read ended.
    pub(super) fn start(&self) -> Location {
        self.source
            .tokens
            .get(self.index(0))
            .map_or(Location { line: 0, column: 0 }, |token| token.span.start)
    }

    /// The text from `start` to the last token read, or to the statement's end.
    pub(super) fn text_from(&self, start: Location, to_statement_end: bool) -> &'a str {
        let limit = if to_statement_end {
            self.end
        } else {
            self.next
        };
        let last = self
            .source
            .tokens
            .get(..limit)
            .unwrap_or_default()
            .iter()
            .rev()
            .find(|token| !matches!(token.token, Token::Whitespace(_)));
        last.map_or("", |token| self.source.slice(start, token.span.end))
    }

    /// A syntax error at the next token.
    pub(super) fn error(&self, expected: &str) -> Error {
        self.error_at(self.index(0), Some(expected))
    }

    fn error_at(&self, index: usize, expected: Option<&str>) -> Error {
        let found = self.source.tokens.get(index).map_or("", |token| {
            self.source.slice(token.span.start, token.span.end)
        });
        let message = if found.is_empty() {
            "syntax error at end of input".to_owned()
        } else {
            format!("syntax error at or near \"{found}\"")
        };
        let error = Error::syntax(message).at(self.position_of(index));
        match expected {
            Some(expected) => error.with_detail(format!("Expected {expected}.")),
            None => error,
        }
    }

    /// The statement must end here.
    pub(super) fn expect_end(&self) -> Result<(), Error> {
        if self.is_end() {
            Ok(())
        } else {
            Err(self.error("end of statement"))
        }
    }

    // --- words and punctuation ---

    fn word(token: &Token) -> Option<&Word> {
        match token {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    /// The `n`th token in upper case, if it is a bare word.
    pub(super) fn bare(&self, n: usize) -> Option<String> {
        Self::word(self.peek(n))
            .filter(|word| word.quote_style.is_none())
            .map(|word| word.value.to_ascii_uppercase())
    }

    fn token_is(token: &Token, word: &str) -> bool {
        Self::word(token).is_some_and(|found| {
            found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word)
        })
    }

    /// Whether the next tokens are these bare words.
    pub(super) fn peek_words(&self, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(n, word)| Self::token_is(self.peek(n), word))
    }

    /// Whether the `n`th token is this bare word.
    pub(super) fn nth_is(&self, n: usize, word: &str) -> bool {
        Self::token_is(self.peek(n), word)
    }

    /// Reads these bare words if they come next, all of them or none.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let found = self.peek_words(words);
        if found {
            for _ in words {
                self.skip();
            }
        }
        found
    }

    /// Reads one of several bare words and says which.
    pub(super) fn take_one<'w>(&mut self, words: &[&'w str]) -> Option<&'w str> {
        let found = words.iter().copied().find(|word| self.nth_is(0, word));
        if found.is_some() {
            self.skip();
        }
        found
    }

    /// Reads these bare words.
    pub(super) fn expect(&mut self, words: &[&str]) -> Result<(), Error> {
        for word in words {
            if !self.take(&[word]) {
                return Err(self.error(word));
            }
        }
        Ok(())
    }

    /// Reads a punctuation token if it comes next.
    pub(super) fn take_token(&mut self, token: &Token) -> bool {
        let found = self.peek(0) == token;
        if found {
            self.skip();
        }
        found
    }

    /// Reads a punctuation token.
    pub(super) fn expect_token(&mut self, token: &Token) -> Result<(), Error> {
        if self.take_token(token) {
            Ok(())
        } else {
            Err(self.error(&format!("\"{token}\"")))
        }
    }

    /// `IF NOT EXISTS`
    pub(super) fn if_not_exists(&mut self) -> Result<bool, Error> {
        if !self.take(&["IF"]) {
            return Ok(false);
        }
        self.expect(&["NOT", "EXISTS"])?;
        Ok(true)
    }

    /// `IF EXISTS`
    pub(super) fn if_exists(&mut self) -> Result<bool, Error> {
        if !self.take(&["IF"]) {
            return Ok(false);
        }
        self.expect(&["EXISTS"])?;
        Ok(true)
    }

    /// `IN CLUSTER c`
    pub(super) fn in_cluster(&mut self) -> Result<Option<Ident>, Error> {
        if self.take(&["IN", "CLUSTER"]) {
            self.ident("a cluster name").map(Some)
        } else {
            Ok(None)
        }
    }

    /// Items separated by commas, at least one. A comma after the last is an error at what follows it.
    pub(super) fn comma_separated<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items = vec![item(self)?];
        while self.take_token(&Token::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// `( item, … )`
    pub(super) fn parenthesized<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        self.expect_token(&Token::LParen)?;
        let items = self.comma_separated(item)?;
        if *self.peek(0) != Token::RParen {
            return Err(self.error("\",\" or \")\""));
        }
        self.skip();
        Ok(items)
    }

    /// Goes past a parenthesised group, whatever is in it.
    pub(super) fn skip_group(&mut self) -> Result<(), Error> {
        self.expect_token(&Token::LParen)?;
        let mut depth = 1_usize;
        while depth > 0 {
            match self.peek(0) {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                Token::EOF => return Err(self.error("\")\"")),
                _ => {}
            }
            self.skip();
        }
        Ok(())
    }

    // --- names and literals ---

    /// An identifier; `what` says what for.
    pub(super) fn ident(&mut self, what: &str) -> Result<Ident, Error> {
        let position = self.position();
        let value = match self.peek(0) {
            Token::Word(word) if word.quote_style.is_some() => {
                if word.value.is_empty() {
                    return Err(
                        Error::new(ErrorKind::Syntax, "zero-length delimited identifier")
                            .at(position),
                    );
                }
                word.value.clone()
            }
            Token::Word(word) => {
                let folded = word.value.to_ascii_lowercase();
                if RESERVED.binary_search(&folded.as_str()).is_ok() {
                    return Err(self.error(what));
                }
                folded
            }
            _ => return Err(self.error(what)),
        };
        self.skip();
        Ok(Ident { value, position })
    }

    /// A name of up to `most` parts.
    pub(super) fn name_of(&mut self, what: &str, most: usize) -> Result<Name, Error> {
        let position = self.position();
        let mut parts = vec![self.ident(what)?];
        while self.take_token(&Token::Period) {
            parts.push(self.label()?);
        }
        let name = Name { parts };
        if name.parts.len() > most {
            return Err(Error::syntax(format!(
                "improper qualified name (too many dotted names): {name}"
            ))
            .at(position));
        }
        Ok(name)
    }

    /// What may follow a period: any word, reserved or not.
    fn label(&mut self) -> Result<Ident, Error> {
        let position = self.position();
        match self.peek(0) {
            Token::Word(word) if word.quote_style.is_none() => {
                let value = word.value.to_ascii_lowercase();
                self.skip();
                Ok(Ident { value, position })
            }
            _ => self.ident("a name"),
        }
    }

    /// The name of an item: up to three parts.
    pub(super) fn name(&mut self, what: &str) -> Result<Name, Error> {
        self.name_of(what, 3)
    }

    /// `(c, …)`, if a parenthesis comes next.
    pub(super) fn optional_columns(&mut self) -> Result<Vec<Ident>, Error> {
        if *self.peek(0) == Token::LParen {
            self.parenthesized(|c| c.ident("a column name"))
        } else {
            Ok(Vec::new())
        }
    }

    fn string_of(token: &Token) -> Option<&str> {
        match token {
            Token::SingleQuotedString(text)
            | Token::EscapedStringLiteral(text)
            | Token::UnicodeStringLiteral(text)
            | Token::NationalStringLiteral(text) => Some(text),
            Token::DollarQuotedString(quoted) => Some(&quoted.value),
            _ => None,
        }
    }

    /// A string literal, if one comes next.
    pub(super) fn take_string(&mut self) -> Option<String> {
        let found = Self::string_of(self.peek(0)).map(str::to_owned);
        if found.is_some() {
            self.skip();
        }
        found
    }

    /// A string literal.
    pub(super) fn string(&mut self, what: &str) -> Result<String, Error> {
        self.take_string().ok_or_else(|| self.error(what))
    }

    /// A number without sign, as written.
    pub(super) fn take_number(&mut self) -> Option<String> {
        let Token::Number(digits, _) = self.peek(0) else {
            return None;
        };
        self.skip();
        Some(digits.clone())
    }

    /// An unsigned integer, also as a string.
    pub(super) fn unsigned(&mut self, what: &str) -> Result<u64, Error> {
        let position = self.position();
        let text = match self.take_number() {
            Some(digits) => digits,
            None => self.string(what)?,
        };
        text.trim().parse().map_err(|_| {
            Error::new(
                ErrorKind::InvalidParameterValue,
                format!("invalid {what}: \"{text}\""),
            )
            .at(position)
        })
    }

    /// A length of time: a string, or a number of seconds.
    pub(super) fn duration(&mut self, what: &str) -> Result<Duration, Error> {
        let position = self.position();
        let text = match self.take_number() {
            Some(digits) => digits,
            None => self.string(what)?,
        };
        parse_duration(&text).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidParameterValue,
                format!("invalid {what}: \"{text}\""),
            )
            .at(position)
        })
    }

    /// The value of an option, if one comes next. The equals sign before it is optional.
    pub(super) fn option_value(&mut self) -> Result<OptionValue, Error> {
        let required = self.take_token(&Token::Eq);
        if let Some(text) = self.take_string() {
            return Ok(OptionValue::String(text));
        }
        if *self.peek(0) == Token::Minus && matches!(self.peek(1), Token::Number(..)) {
            self.skip();
            return Ok(OptionValue::Number(format!(
                "-{}",
                self.take_number().unwrap_or_default()
            )));
        }
        if let Some(digits) = self.take_number() {
            return Ok(OptionValue::Number(digits));
        }
        if self.nth_is(0, "SECRET") && matches!(self.peek(1), Token::Word(_)) {
            self.skip();
            return self.name("a secret").map(OptionValue::Secret);
        }
        match self.peek(0) {
            Token::Word(word) => {
                if *self.peek(1) == Token::Period {
                    return self.name("a name").map(OptionValue::Name);
                }
                let value = if word.quote_style.is_some() {
                    word.value.clone()
                } else {
                    word.value.to_ascii_lowercase()
                };
                self.skip();
                Ok(OptionValue::Word(value))
            }
            _ if required => Err(self.error("a value")),
            _ => Ok(OptionValue::None),
        }
    }

    /// `WITH ( name [=] value, … )`, if `WITH` comes next. Names are those of `known`, each a list of words.
    pub(super) fn with_options(&mut self, known: &[&str]) -> Result<Vec<WithOption>, Error> {
        if !self.take(&["WITH"]) {
            return Ok(Vec::new());
        }
        let mut seen: Vec<String> = Vec::new();
        self.parenthesized(|c| {
            let position = c.position();
            let Some(name) = known
                .iter()
                .find(|name| c.peek_words(&name.split(' ').collect::<Vec<_>>()))
            else {
                return Err(c.error(&format!("one of {}", known.join(", "))));
            };
            c.take(&name.split(' ').collect::<Vec<_>>());
            if seen.iter().any(|earlier| earlier == name) {
                return Err(
                    Error::syntax(format!("option {name} specified more than once")).at(position),
                );
            }
            seen.push((*name).to_owned());
            let _ = c.nth_is(0, "FOR") && c.take(&["FOR"]);
            let value = c.option_value()?;
            Ok(WithOption {
                name: (*name).to_owned(),
                value,
                position,
            })
        })
    }

    /// `[=] ( name, … )` or `[=] [ name, … ]`
    pub(super) fn name_list(&mut self, what: &str, most: usize) -> Result<Vec<Name>, Error> {
        self.take_token(&Token::Eq);
        let close = match self.peek(0) {
            Token::LBracket => Token::RBracket,
            _ => Token::RParen,
        };
        if close == Token::RBracket {
            self.skip();
        } else {
            self.expect_token(&Token::LParen)?;
        }
        if self.take_token(&close) {
            return Ok(Vec::new());
        }
        let names = self.comma_separated(|c| c.name_of(what, most))?;
        self.expect_token(&close)?;
        Ok(names)
    }

    // --- the hand-over to sqlparser ---

    /// Lets `sqlparser` read from here to at most the statement's end.
    pub(super) fn delegate<T>(
        &mut self,
        parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    ) -> Result<T, Error> {
        let start = self.index(0);
        let tokens = self
            .source
            .tokens
            .get(start..self.end)
            .unwrap_or_default()
            .to_vec();
        let (tokens, origins) = spell_out_table(tokens);
        let dialect = FlowstoneDialect::new(tokens.len());
        let mut parser = Parser::new(&dialect)
            .with_recursion_limit(RECURSION_LIMIT)
            .with_tokens_with_locations(tokens);
        let result = parse(&mut parser);
        let stopped = origins
            .get(parser.index())
            .map_or(self.end, |origin| start + origin);
        match result {
            Ok(value) => {
                self.next = stopped;
                Ok(value)
            }
            Err(error) => Err(self.translate(&error)),
        }
    }

    /// `sqlparser`'s error as ours, at the token it complains about.
    fn translate(&self, error: &ParserError) -> Error {
        let text = match error {
            ParserError::RecursionLimitExceeded => {
                return Error::new(ErrorKind::TooComplex, "statement is nested too deeply")
                    .at(self.position());
            }
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        };
        let (message, location) = split_location(text);
        let index = match location {
            Some(location) => {
                let position = self.source.position(location);
                let found = self
                    .source
                    .tokens
                    .partition_point(|token| self.source.position(token.span.start) < position);
                found.min(self.end)
            }
            None => self.end,
        };
        // Of one complaint the location is that of the token after the one that is meant.
        if message.starts_with("Expected an expression, found: ") {
            let tokens = self.source.tokens.get(..index).unwrap_or_default();
            let before = tokens
                .iter()
                .rposition(|token| !matches!(token.token, Token::Whitespace(_)));
            return self.error_at(before.unwrap_or(index), Some("an expression"));
        }
        match message
            .strip_prefix("Expected: ")
            .and_then(|rest| rest.split_once(", found: "))
        {
            Some((expected, _)) => self.error_at(index, Some(expected)),
            None if location.is_some() => self
                .error_at(index, None)
                .with_detail(format!("{}.", upper_first(message.trim_end_matches('.')))),
            None => Error::syntax(lower_first(message.trim_end_matches('.')))
                .at(self.position_of(index)),
        }
    }

    /// An expression.
    pub(super) fn expr(&mut self) -> Result<Expr, Error> {
        let mut expr = self.delegate(|parser| parser.parse_expr())?;
        sets::balance(&mut expr)?;
        Ok(expr)
    }

    /// A query. It must start here with SELECT, VALUES, TABLE, WITH or a parenthesis.
    pub(super) fn query(&mut self) -> Result<Box<Query>, Error> {
        if self.peek_words(&["WITH", "MUTUALLY"]) {
            return Err(
                Error::unsupported("WITH MUTUALLY RECURSIVE is not supported").at(self.position()),
            );
        }
        let starts = ["SELECT", "VALUES", "TABLE", "WITH"]
            .iter()
            .any(|word| self.nth_is(0, word))
            || *self.peek(0) == Token::LParen;
        if !starts {
            return Err(self.error("a query"));
        }
        let mut query = self.delegate(|parser| parser.parse_query())?;
        sets::balance(&mut query)?;
        Ok(query)
    }

    /// A SQL type.
    pub(super) fn sql_type(&mut self) -> Result<SqlType, Error> {
        let position = self.position();
        let data_type = self.delegate(|parser| parser.parse_data_type())?;
        parse_type(&data_type).map_err(|error| error.at(position))
    }

    /// Runs `parse` as if the statement ended at the token with index `end`, which must then be reached.
    pub(super) fn within<T>(
        &mut self,
        end: usize,
        parse: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let whole = self.end;
        self.end = end.min(whole);
        let result = parse(self).and_then(|value| self.expect_end().map(|()| value));
        if result.is_ok() {
            self.next = self.end;
        }
        self.end = whole;
        result
    }

    /// The index of `AS` in an `AS OF <time>` that ends a query outside of all parentheses; `None` if there is none.
    pub(super) fn find_as_of(&self) -> Option<usize> {
        let mut depth = 0_usize;
        let mut found = None;
        let mut cursor = self.clone();
        while !cursor.is_end() {
            match cursor.peek(0) {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
                _ => {}
            }
            let time_follows = match cursor.peek(2) {
                Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => true,
                Token::Word(_) => {
                    cursor.peek_words(&["AS", "OF", "AT", "LEAST"])
                        || *cursor.peek(3) == Token::LParen
                }
                _ => false,
            };
            if depth == 0 && time_follows && cursor.peek_words(&["AS", "OF"]) {
                found = Some(cursor.index(0));
            }
            cursor.skip();
        }
        found
    }
}

/// What may follow `TABLE t`.
const AFTER_TABLE: &[&str] = &[
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "FOR",
    "ON",
    "RETURNING",
];

/// Writes `TABLE t` as `SELECT * FROM t`, which `sqlparser` reads to its end: of the other it passes over the two tokens behind the name. The second list has,
/// for each token, the index it had.
fn spell_out_table(tokens: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, Vec<usize>) {
    let is_blank = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let mut spelled = Vec::with_capacity(tokens.len());
    let mut origins = Vec::with_capacity(tokens.len());
    let mut before: Option<&Token> = None;
    // Behind TABLE: whether a part of the name comes next, or a period or the end of the command.
    let mut name_next = None;
    for (index, token) in tokens.iter().enumerate() {
        let mut push = |token: Token| {
            let span = tokens.get(index).map_or(Span::empty(), |here| here.span);
            spelled.push(TokenWithSpan::new(token, span));
            origins.push(index);
        };
        if is_blank(token) {
            push(token.token.clone());
            continue;
        }
        let mut behind = tokens
            .iter()
            .skip(index + 1)
            .filter(|token| !is_blank(token));
        if name_next == Some(true) {
            name_next = Some(false);
        } else if name_next == Some(false) {
            name_next = (token.token == Token::Period).then_some(true);
            let ends = token.token == Token::RParen
                || AFTER_TABLE
                    .iter()
                    .any(|word| Cursor::token_is(&token.token, word));
            if name_next.is_none() && !ends {
                // Nothing that a FROM clause could go on with: the error is here.
                push(Token::RBracket);
            }
        }
        if Cursor::token_is(&token.token, "TABLE")
            && is_table_command(before, behind.next().map(|token| &token.token))
        {
            push(Token::make_keyword("SELECT"));
            push(Token::Mul);
            push(Token::make_keyword("FROM"));
            name_next = Some(true);
        } else {
            push(token.token.clone());
        }
        before = Some(&token.token);
    }
    (spelled, origins)
}

/// Whether the word TABLE between these tokens is the command, and not the name of a column.
fn is_table_command(before: Option<&Token>, behind: Option<&Token>) -> bool {
    let Some(Token::Word(name)) = behind else {
        return false;
    };
    let word_before = |words: &[&str]| {
        before.is_some_and(|token| words.iter().any(|word| Cursor::token_is(token, word)))
    };
    let starts_query = matches!(before, None | Some(Token::LParen))
        || word_before(&["UNION", "EXCEPT", "INTERSECT", "ALL", "DISTINCT"]);
    let is_name = name.quote_style.is_some()
        || RESERVED
            .binary_search(&name.value.to_ascii_lowercase().as_str())
            .is_err();
    starts_query || is_name && before != Some(&Token::Period) && !word_before(&["AS"])
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// Splits `… at Line: 3, Column: 7` off a message of `sqlparser`.
fn split_location(text: &str) -> (&str, Option<Location>) {
    let parse = |tail: &str| {
        let (line, column) = tail.split_once(", Column: ")?;
        Some(Location {
            line: line.parse().ok()?,
            column: column.parse().ok()?,
        })
    };
    match text.rsplit_once(" at Line: ") {
        Some((message, tail)) => match parse(tail) {
            Some(location) => (message, Some(location)),
            None => (text, None),
        },
        None => (text, None),
    }
}

/// A length of time as options state it: `1s`, `500ms`, `1.5 minutes`, `1 minute 30 seconds`, `00:00:30`, or a bare number of seconds.
/// `None` if it is none, or negative.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    if text.contains(':') {
        let mut seconds = 0.0;
        for part in text.split(':') {
            seconds = seconds * 60.0 + part.parse::<f64>().ok().filter(|part| *part >= 0.0)?;
        }
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut total = Duration::ZERO;
    let mut rest = text.as_str();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(digits)?;
        let number: f64 = number.parse().ok()?;
        let tail = tail.trim_start();
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(letters)?;
        let scale = match unit {
            "us" | "usec" | "microsecond" | "microseconds" => 1e-6,
            "ms" | "msec" | "millisecond" | "milliseconds" => 1e-3,
            "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * scale).ok()?)?;
        rest = tail.trim_start();
    }
    Some(total)
}

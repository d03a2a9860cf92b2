//! From the text of a path to its tree.
//!
//! Owns the grammar: what stands where a sequence of items is expected and what where a condition is. Called by [`Path::parse`].

use flowstone_types::jsonb::{JsonbBuf, JsonbBuilder};
use flowstone_types::{EvalError, EvalErrorKind};

use super::lexer::{Keyword, Lexer, Placed, Token, error_near};
use super::{
    Arithmetic, Comparison, DEPTH_MAX, Kind, Levels, Method, Node, PARTS_MAX, Path, Pattern, Sign,
    Step, Subscript, syntax_error,
};
use crate::errors::{EvalResult, from_type_error, not_supported};
use crate::pattern::Patterns;

pub(super) fn parse(text: &str) -> EvalResult<Path> {
    let mut lexer = Lexer::new(text);
    let ahead = lexer.next()?;
    if ahead.token == Token::End {
        return Err(EvalError::new(
            EvalErrorKind::InvalidText,
            format!("invalid input syntax for type jsonpath: \"{text}\""),
        ));
    }
    let mut parser = Parser {
        lexer,
        ahead,
        parts: 0,
        depth: 0,
        filters: 0,
        subscripts: 0,
    };
    let is_lax = match parser.keyword() {
        Some(Keyword::Strict) => {
            parser.advance()?;
            false
        }
        Some(Keyword::Lax) => {
            parser.advance()?;
            true
        }
        _ => true,
    };
    let root = parser.disjunction()?;
    match parser.ahead.token {
        Token::End => Ok(Path { is_lax, root }),
        _ => Err(parser.unexpected()),
    }
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The word that is read next.
    ahead: Placed,
    parts: usize,
    depth: usize,
    /// Filters around the place.
    filters: usize,
    /// Subscripts around the place.
    subscripts: usize,
}

fn method(keyword: Keyword) -> Option<Method> {
    Some(match keyword {
        Keyword::Type => Method::Type,
        Keyword::Size => Method::Size,
        Keyword::Double => Method::Double,
        Keyword::Ceiling => Method::Ceiling,
        Keyword::Floor => Method::Floor,
        Keyword::Abs => Method::Abs,
        Keyword::KeyValue => Method::KeyValue,
        _ => return None,
    })
}

fn literal(make: impl FnOnce(&mut JsonbBuilder)) -> EvalResult<Kind> {
    let mut builder = JsonbBuilder::new();
    make(&mut builder);
    let value: JsonbBuf = builder.finish().map_err(|error| from_type_error(&error))?;
    Ok(Kind::Value(value))
}

/// A number in JSON's syntax: digits on both sides of a point.
fn number(text: &str) -> EvalResult<Kind> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let mut shown = String::with_capacity(text.len() + 2);
    if mantissa.starts_with('.') {
        shown.push('0');
    }
    shown.push_str(mantissa);
    if mantissa.ends_with('.') {
        shown.push('0');
    }
    shown.push_str(exponent);
    literal(|builder| {
        builder.number(&shown);
    })
}

impl Parser<'_> {
    fn keyword(&self) -> Option<Keyword> {
        match self.ahead.token {
            Token::Word(_, keyword) => keyword,
            _ => None,
        }
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.ahead.token, Token::Symbol(ahead) if ahead == symbol)
    }

    fn unexpected(&self) -> EvalError {
        error_near("syntax error", self.ahead.near.as_deref())
    }

    fn advance(&mut self) -> EvalResult<Token> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.ahead, next).token)
    }

    fn accept(&mut self, symbol: &str) -> EvalResult<bool> {
        let is_there = self.is(symbol);
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    fn expect(&mut self, symbol: &str) -> EvalResult<()> {
        if self.accept(symbol)? {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn accept_keyword(&mut self, keyword: Keyword) -> EvalResult<bool> {
        let is_there = self.keyword() == Some(keyword);
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    fn expect_keyword(&mut self, keyword: Keyword) -> EvalResult<()> {
        if self.accept_keyword(keyword)? {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    /// Counts a part.
    fn part(&mut self) -> EvalResult<()> {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(not_supported(format!(
                "a jsonpath of more than {PARTS_MAX} parts is not supported"
            )));
        }
        Ok(())
    }

    fn node(&mut self, kind: Kind) -> EvalResult<Node> {
        self.part()?;
        Ok(Node::new(kind))
    }

    /// What was read is a condition, or what comes next is out of place.
    fn condition(&self, node: Node) -> EvalResult<Box<Node>> {
        if node.is_predicate() {
            Ok(Box::new(node))
        } else {
            Err(self.unexpected())
        }
    }

    /// What was read is a sequence of items, or what comes next is out of place.
    fn items(&self, node: Node) -> EvalResult<Box<Node>> {
        if node.is_predicate() {
            Err(self.unexpected())
        } else {
            Ok(Box::new(node))
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> EvalResult<T>) -> EvalResult<T> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(not_supported(format!(
                "a jsonpath nested deeper than {DEPTH_MAX} levels is not supported"
            )));
        }
        let parsed = parse(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    fn disjunction(&mut self) -> EvalResult<Node> {
        let mut left = self.conjunction()?;
        while self.is("||") {
            let first = self.condition(left)?;
            self.advance()?;
            let second = self.conjunction()?;
            let second = self.condition(second)?;
            left = self.node(Kind::Or(first, second))?;
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> EvalResult<Node> {
        let mut left = self.comparison()?;
        while self.is("&&") {
            let first = self.condition(left)?;
            self.advance()?;
            let second = self.comparison()?;
            let second = self.condition(second)?;
            left = self.node(Kind::And(first, second))?;
        }
        Ok(left)
    }

    fn comparison(&mut self) -> EvalResult<Node> {
        if self.accept("!")? {
            let negated = if self.keyword() == Some(Keyword::Exists) {
                self.exists()?
            } else {
                self.expect("(")?;
                let inner = self.deeper(Self::disjunction)?;
                let inner = self.condition(inner)?;
                self.expect(")")?;
                *inner
            };
            return self.node(Kind::Not(Box::new(negated)));
        }
        let left = self.sum()?;
        let op = match &self.ahead.token {
            Token::Symbol("==") => Comparison::Equal,
            Token::Symbol("!=" | "<>") => Comparison::NotEqual,
            Token::Symbol("<") => Comparison::Less,
            Token::Symbol("<=") => Comparison::LessOrEqual,
            Token::Symbol(">") => Comparison::Greater,
            Token::Symbol(">=") => Comparison::GreaterOrEqual,
            Token::Word(_, Some(Keyword::Starts)) => return self.starts_with(left),
            Token::Word(_, Some(Keyword::LikeRegex)) => return self.like_regex(left),
            _ => return Ok(left),
        };
        let left = self.items(left)?;
        self.advance()?;
        let right = self.sum()?;
        let right = self.items(right)?;
        self.node(Kind::Compare(op, left, right))
    }

    fn starts_with(&mut self, left: Node) -> EvalResult<Node> {
        let left = self.items(left)?;
        self.advance()?;
        self.expect_keyword(Keyword::With)?;
        let start = match &self.ahead.token {
            Token::String(text) => literal(|builder| {
                builder.string(text);
            })?,
            Token::Variable(name) => Kind::Variable(name.clone()),
            _ => return Err(self.unexpected()),
        };
        self.advance()?;
        let start = self.node(start)?;
        self.node(Kind::StartsWith(left, Box::new(start)))
    }

    fn like_regex(&mut self, left: Node) -> EvalResult<Node> {
        let left = self.items(left)?;
        self.advance()?;
        let text = self.string()?;
        let letters = if self.accept_keyword(Keyword::Flag)? {
            self.string()?
        } else {
            String::new()
        };
        let pattern = Pattern {
            flags: flags(&letters)?,
            text,
        };
        Patterns::default().get("", &pattern.text, &pattern.flags)?;
        self.node(Kind::LikeRegex(left, pattern))
    }

    fn string(&mut self) -> EvalResult<String> {
        let Token::String(text) = &self.ahead.token else {
            return Err(self.unexpected());
        };
        let text = text.clone();
        self.advance()?;
        Ok(text)
    }

    fn sum(&mut self) -> EvalResult<Node> {
        let mut left = self.product()?;
        loop {
            let op = match self.ahead.token {
                Token::Symbol("+") => Arithmetic::Add,
                Token::Symbol("-") => Arithmetic::Subtract,
                _ => return Ok(left),
            };
            let first = self.items(left)?;
            self.advance()?;
            let second = self.product()?;
            let second = self.items(second)?;
            left = self.node(Kind::Arithmetic(op, first, second))?;
        }
    }

    fn product(&mut self) -> EvalResult<Node> {
        let mut left = self.signed()?;
        loop {
            let op = match self.ahead.token {
                Token::Symbol("*") => Arithmetic::Multiply,
                Token::Symbol("/") => Arithmetic::Divide,
                Token::Symbol("%") => Arithmetic::Modulo,
                _ => return Ok(left),
            };
            let first = self.items(left)?;
            self.advance()?;
            let second = self.signed()?;
            let second = self.items(second)?;
            left = self.node(Kind::Arithmetic(op, first, second))?;
        }
    }

    fn signed(&mut self) -> EvalResult<Node> {
        let sign = match self.ahead.token {
            Token::Symbol("+") => Sign::Plus,
            Token::Symbol("-") => Sign::Minus,
            _ => return self.operand(),
        };
        self.advance()?;
        let operand = self.deeper(Self::signed)?;
        let operand = self.items(operand)?;
        self.node(Kind::Sign(sign, operand))
    }

    fn exists(&mut self) -> EvalResult<Node> {
        self.expect_keyword(Keyword::Exists)?;
        self.expect("(")?;
        let inner = self.deeper(Self::disjunction)?;
        let inner = self.items(inner)?;
        self.expect(")")?;
        self.node(Kind::Exists(inner))
    }

    fn operand(&mut self) -> EvalResult<Node> {
        if self.keyword() == Some(Keyword::Exists) {
            return self.exists();
        }
        if self.accept("(")? {
            return self.parenthesised();
        }
        let kind = match &self.ahead.token {
            Token::Symbol("$") => Kind::Root,
            Token::Symbol("@") if self.filters == 0 => {
                return Err(syntax_error("@ is not allowed in root expressions"));
            }
            Token::Symbol("@") => Kind::Current,
            Token::Word(_, Some(Keyword::Last)) if self.subscripts == 0 => {
                return Err(syntax_error("LAST is allowed only in array subscripts"));
            }
            Token::Word(_, Some(Keyword::Last)) => Kind::Last,
            Token::Word(_, Some(Keyword::Null)) => literal(|builder| {
                builder.null();
            })?,
            Token::Word(_, Some(word @ (Keyword::True | Keyword::False))) => {
                let value = *word == Keyword::True;
                literal(|builder| {
                    builder.bool(value);
                })?
            }
            Token::String(text) => literal(|builder| {
                builder.string(text);
            })?,
            Token::Variable(name) => Kind::Variable(name.clone()),
            Token::Integer(text) | Token::Decimal(text) => number(text)?,
            Token::Word(..) | Token::Symbol(_) | Token::End => return Err(self.unexpected()),
        };
        self.advance()?;
        let node = self.node(kind)?;
        self.accessors(node)
    }

    fn parenthesised(&mut self) -> EvalResult<Node> {
        let inner = self.deeper(Self::disjunction)?;
        self.expect(")")?;
        if !inner.is_predicate() {
            return self.accessors(inner);
        }
        if self.accept_keyword(Keyword::Is)? {
            self.expect_keyword(Keyword::Unknown)?;
            return self.node(Kind::IsUnknown(Box::new(inner)));
        }
        self.accessors(inner)
    }

    /// The accessors behind an operand.
    fn accessors(&mut self, mut node: Node) -> EvalResult<Node> {
        loop {
            let step = match self.ahead.token {
                Token::Symbol(".") => {
                    self.advance()?;
                    self.member()?
                }
                Token::Symbol("[") => {
                    self.advance()?;
                    self.subscript()?
                }
                Token::Symbol("?") => {
                    self.advance()?;
                    self.expect("(")?;
                    self.filters += 1;
                    let condition = self.deeper(Self::disjunction)?;
                    self.filters -= 1;
                    let condition = self.condition(condition)?;
                    self.expect(")")?;
                    Step::Filter(*condition)
                }
                _ => return Ok(node),
            };
            self.part()?;
            node.steps.push(step);
        }
    }

    fn member(&mut self) -> EvalResult<Step> {
        match self.advance_of_member()? {
            Token::Symbol("**") => self.levels().map(Step::Descendants),
            Token::Symbol(_) => Ok(Step::AnyMember),
            Token::Word(_, Some(Keyword::Datetime)) if self.is("(") => Err(not_supported(
                "jsonpath item method .datetime() is not supported",
            )),
            Token::Word(key, keyword) => match keyword.and_then(method) {
                Some(method) if self.accept("(")? => {
                    self.expect(")")?;
                    Ok(Step::Method(method))
                }
                _ => Ok(Step::Member(key)),
            },
            Token::String(key) => Ok(Step::Member(key)),
            Token::Variable(_) | Token::Integer(_) | Token::Decimal(_) | Token::End => {
                Err(self.unexpected())
            }
        }
    }

    /// The word behind a point, if one may stand there.
    fn advance_of_member(&mut self) -> EvalResult<Token> {
        match self.ahead.token {
            Token::Symbol("*" | "**") | Token::Word(..) | Token::String(_) => self.advance(),
            _ => Err(self.unexpected()),
        }
    }

    fn levels(&mut self) -> EvalResult<Levels> {
        if !self.accept("{")? {
            return Ok(Levels {
                first: 0,
                last: Levels::LAST,
            });
        }
        let first = self.level()?;
        let last = if self.accept_keyword(Keyword::To)? {
            self.level()?
        } else {
            first
        };
        self.expect("}")?;
        Ok(Levels { first, last })
    }

    fn level(&mut self) -> EvalResult<u32> {
        if self.accept_keyword(Keyword::Last)? {
            return Ok(Levels::LAST);
        }
        let Token::Integer(text) = &self.ahead.token else {
            return Err(self.unexpected());
        };
        let level = text
            .parse::<i32>()
            .ok()
            .and_then(|level| u32::try_from(level).ok())
            .ok_or_else(|| {
                EvalError::new(
                    EvalErrorKind::NumericOutOfRange,
                    format!("value \"{text}\" is out of range for type integer"),
                )
            })?;
        self.advance()?;
        Ok(level)
    }

    fn subscript(&mut self) -> EvalResult<Step> {
        if self.accept("*")? {
            self.expect("]")?;
            return Ok(Step::AnyItem);
        }
        self.subscripts += 1;
        let mut subscripts = Vec::new();
        loop {
            let from = self.deeper(Self::sum)?;
            let from = *self.items(from)?;
            let to = if self.accept_keyword(Keyword::To)? {
                let to = self.deeper(Self::sum)?;
                Some(*self.items(to)?)
            } else {
                None
            };
            subscripts.push(Subscript { from, to });
            if !self.accept(",")? {
                break;
            }
        }
        self.subscripts -= 1;
        self.expect("]")?;
        Ok(Step::Items(subscripts))
    }
}

/// The flags of the functions of text that mean what these do in XQuery: there, a dot matches no newline unless that is asked for.
fn flags(letters: &str) -> EvalResult<String> {
    let (mut ignores_case, mut dot_matches_all, mut at_lines, mut is_literal, mut is_expanded) =
        (false, false, false, false, false);
    for letter in letters.chars() {
        match letter {
            'i' => ignores_case = true,
            's' => dot_matches_all = true,
            'm' => at_lines = true,
            'q' => is_literal = true,
            'x' => is_expanded = true,
            _ => return Err(syntax_error("invalid input syntax for type jsonpath")),
        }
    }
    if is_expanded && !is_literal {
        return Err(not_supported(
            "XQuery \"x\" flag (expanded regular expressions) is not implemented",
        ));
    }
    let mut flags = String::new();
    if ignores_case {
        flags.push('i');
    }
    flags.push(match (is_literal, dot_matches_all, at_lines) {
        (true, ..) => 'q',
        (false, true, true) => 'w',
        (false, true, false) => 's',
        (false, false, true) => 'n',
        (false, false, false) => 'p',
    });
    Ok(flags)
}

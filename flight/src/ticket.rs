//! What a ticket stands for, and how it and a command travel.
//!
//! Owns the contents of our own tickets and the reading of commands: protobuf `Any`s of Flight SQL, or plain SQL text.

use arrow_flight::sql::{
    Any, Command, CommandStatementQuery, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{FlightInfo, Ticket};
use prost::Message;
use uuid::Uuid;

use crate::Error;

/// A result that a client may fetch. Whoever has the ticket knows what it holds anyway: it is the client's own statement.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct QueryTicket {
    /// A number of its own, by which the query is cancelled while it runs.
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    /// What is run.
    #[prost(oneof = "Target", tags = "2, 3, 4")]
    target: Option<Target>,
}

/// What a ticket runs.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Target {
    /// A statement by its text.
    #[prost(message, tag = "2")]
    Text(TextTarget),
    /// A prepared statement with values bound to it.
    #[prost(message, tag = "3")]
    Prepared(PreparedTarget),
    /// Nothing: the statement was run already and gave no rows. The text is its command tag.
    #[prost(string, tag = "4")]
    Done(String),
}

/// A statement by its text.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct TextTarget {
    /// The text.
    #[prost(string, tag = "1")]
    pub(crate) sql: String,
    /// The transaction it belongs to.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) transaction: Option<Vec<u8>>,
}

/// A prepared statement.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct PreparedTarget {
    /// Its handle.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) handle: Vec<u8>,
    /// Which of the bindings.
    #[prost(uint64, tag = "2")]
    pub(crate) binding: u64,
}

impl QueryTicket {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            id: Uuid::new_v4().as_bytes().to_vec(),
            target: Some(target),
        }
    }

    /// The ticket as it travels.
    pub(crate) fn to_ticket(&self) -> Ticket {
        let statement = TicketStatementQuery {
            statement_handle: self.encode_to_vec().into(),
        };
        Ticket::new(statement.as_any().encode_to_vec())
    }

    /// What a client sends back.
    pub(crate) fn read(statement: &TicketStatementQuery) -> Result<(Uuid, Target), Error> {
        let unknown = || Error::Malformed("the ticket is none of this node's".to_owned());
        let ticket = Self::decode(statement.statement_handle.as_ref()).map_err(|_| unknown())?;
        let id = Uuid::from_slice(&ticket.id).map_err(|_| unknown())?;
        Ok((id, ticket.target.ok_or_else(unknown)?))
    }
}

/// The queries that a `FlightInfo` of ours would run.
pub(crate) fn queries_of(info: &FlightInfo) -> Vec<Uuid> {
    let tickets = info
        .endpoint
        .iter()
        .filter_map(|endpoint| endpoint.ticket.as_ref());
    tickets
        .filter_map(|ticket| match command(&ticket.ticket) {
            Ok(Command::TicketStatementQuery(statement)) => {
                QueryTicket::read(&statement).ok().map(|(id, _)| id)
            }
            _ => None,
        })
        .collect()
}

/// Reads a descriptor's command or a ticket: a message of Flight SQL, or SQL text as a convenience.
///
/// No SQL text is a valid `Any`: that begins with a line feed and a length, and then names a type.
pub(crate) fn command(bytes: &[u8]) -> Result<Command, Error> {
    let is_flight_sql = |any: &Any| any.type_url.starts_with("type.googleapis.com/");
    match Any::decode(bytes) {
        Ok(any) if is_flight_sql(&any) => {
            Command::try_from(any).map_err(|error| Error::Malformed(error.to_string()))
        }
        _ => match std::str::from_utf8(bytes) {
            Ok(sql) if !sql.is_empty() && !sql.contains('\0') => {
                Ok(Command::CommandStatementQuery(CommandStatementQuery {
                    query: sql.to_owned(),
                    transaction_id: None,
                }))
            }
            _ => Err(Error::Malformed(
                "the command is neither a message of Flight SQL nor SQL text".to_owned(),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_messages_or_text() {
        let query = CommandStatementQuery {
            query: "SELECT 1".to_owned(),
            transaction_id: None,
        };
        let message = query.as_any().encode_to_vec();
        assert_eq!(
            command(&message).unwrap(),
            Command::CommandStatementQuery(query.clone())
        );
        assert_eq!(
            command(b"SELECT 1").unwrap(),
            Command::CommandStatementQuery(query)
        );
        assert_eq!(
            command(b"\nSELECT 1").unwrap().type_url(),
            CommandStatementQuery::type_url()
        );
        assert!(command(b"").is_err());
        assert!(command(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn tickets_come_back_as_they_were() {
        let ticket = QueryTicket::new(Target::Prepared(PreparedTarget {
            handle: vec![1, 2],
            binding: 3,
        }));
        let info = FlightInfo::new()
            .with_endpoint(arrow_flight::FlightEndpoint::new().with_ticket(ticket.to_ticket()));
        let Command::TicketStatementQuery(statement) = command(&ticket.to_ticket().ticket).unwrap()
        else {
            panic!("a ticket is a TicketStatementQuery");
        };
        let (id, target) = QueryTicket::read(&statement).unwrap();
        assert_eq!(queries_of(&info), vec![id]);
        assert_eq!(Some(target), ticket.target);
        let foreign = TicketStatementQuery {
            statement_handle: vec![9; 40].into(),
        };
        assert!(QueryTicket::read(&foreign).is_err());
    }
}

//! The table of all RPCs of the three planes: one row each, checked by the compiler.

use std::fmt;

use prost::{Message, Name};

use crate::{self as pb, rpc::RpcMode};

/// One of Drill's three kinds of connections (its `RpcChannel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plane {
    /// Client to Drillbit: queries and results.
    User,
    /// Drillbit to Drillbit: fragments, status, cancel.
    Control,
    /// Drillbit to Drillbit: record batches.
    Data,
}

impl Plane {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 3] = [Self::User, Self::Control, Self::Data];

    /// The name in lower case, as tools and metrics spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Control => "control",
            Self::Data => "data",
        }
    }
}

/// One RPC: its numbers and the messages that it carries.
///
/// Implemented by a marker type per row, because several RPCs share a request message.
pub trait Call: Send + Sync + 'static {
    /// The plane whose connections carry it.
    const PLANE: Plane;
    /// `rpc_type` of the request.
    const REQUEST: i32;
    /// `rpc_type` of the response.
    const RESPONSE: i32;
    /// Body of the request.
    type Request: Message + Default + Name + Send + 'static;
    /// Body of the response.
    type Reply: Message + Default + Name + Send + 'static;

    /// Drill's name of the request number.
    #[must_use]
    fn name() -> &'static str {
        rpc_name(Self::PLANE, Self::REQUEST).unwrap_or("UNKNOWN")
    }
}

/// A [`Call`] as data, for tools that look rows up by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRow {
    /// Plane of the call.
    pub plane: Plane,
    /// `rpc_type` of the request.
    pub request: i32,
    /// Body of the request.
    pub request_message: MessageName,
    /// `rpc_type` of the response.
    pub response: i32,
    /// Body of the response.
    pub response_message: MessageName,
    /// Whether the request may overtake, and be overtaken by, any other on its connection.
    pub unordered: bool,
}

/// A message that is never answered: a request with coordination id 0, between our own nodes.
pub trait OneWay: Send + Sync + 'static {
    /// The plane whose connections carry it.
    const PLANE: Plane;
    /// Its `rpc_type`.
    const RPC_TYPE: i32;
    /// Its body.
    type Message: Message + Default + Name + Send + 'static;

    /// Name of its number.
    #[must_use]
    fn name() -> &'static str {
        rpc_name(Self::PLANE, Self::RPC_TYPE).unwrap_or("UNKNOWN")
    }
}

/// A [`OneWay`] as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneWayRow {
    /// Plane of the message.
    pub plane: Plane,
    /// Its `rpc_type`.
    pub rpc_type: i32,
    /// Its body.
    pub message: MessageName,
}

/// Full protobuf name of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageName {
    /// Protobuf package.
    pub package: &'static str,
    /// Name within the package.
    pub name: &'static str,
}

impl MessageName {
    const fn of<M: Name>() -> Self {
        Self {
            package: M::PACKAGE,
            name: M::NAME,
        }
    }
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.package, self.name)
    }
}

/// Drill's name of a number in a plane's `RpcType`; `None` if the plane has no such number.
#[must_use]
pub fn rpc_name(plane: Plane, rpc_type: i32) -> Option<&'static str> {
    match plane {
        Plane::User => pb::user::RpcType::try_from(rpc_type).map(|t| t.as_str_name()),
        Plane::Control => pb::control::RpcType::try_from(rpc_type).map(|t| t.as_str_name()),
        Plane::Data => pb::data::RpcType::try_from(rpc_type).map(|t| t.as_str_name()),
    }
    .ok()
}

/// The message that the protobuf body of a frame holds; `None` where the plane has no such RPC.
#[must_use]
pub fn body_message(plane: Plane, mode: RpcMode, rpc_type: i32) -> Option<MessageName> {
    let mut rows = TABLE
        .iter()
        .copied()
        .flatten()
        .filter(|row| row.plane == plane);
    match mode {
        RpcMode::Request => {
            let called = rows.find(|row| row.request == rpc_type);
            let one_way = || one_way(plane, rpc_type).map(|row| row.message);
            called.map(|row| row.request_message).or_else(one_way)
        }
        RpcMode::Response => Some(rows.find(|row| row.response == rpc_type)?.response_message),
        RpcMode::ResponseFailure => Some(MessageName::of::<pb::shared::DrillPbError>()),
        RpcMode::Ping | RpcMode::Pong => Some(MessageName::of::<pb::rpc::Ack>()),
    }
}

/// Whether requests of `rpc_type` may overtake, and be overtaken by, any other on their connection. False for a number
/// that the plane does not have.
#[must_use]
pub fn unordered(plane: Plane, rpc_type: i32) -> bool {
    let mut rows = TABLE.iter().copied().flatten();
    rows.any(|row| row.unordered && row.plane == plane && row.request == rpc_type)
}

/// The row of a message that is never answered.
#[must_use]
pub fn one_way(plane: Plane, rpc_type: i32) -> Option<OneWayRow> {
    let mut rows = ONE_WAY.iter().copied();
    rows.find(|row| row.plane == plane && row.rpc_type == rpc_type)
}

/// All rows, one slice a plane.
pub const TABLE: [&[CallRow]; 3] = [user::TABLE, control::TABLE, data::TABLE];

macro_rules! calls {
    ($(#[$doc:meta])* $module:ident, $plane:ident: $(
        $(#[$row_doc:meta])*
        $call:ident = $request_type:ident ($request:ty) -> $response_type:ident ($reply:ty) $(, $unordered:ident)?;
    )+) => {
        $(#[$doc])*
        pub mod $module {
            use super::{Call, CallRow, MessageName, Plane, pb};
            use pb::$module::RpcType;

            $(
                $(#[$row_doc])*
                #[derive(Clone, Copy, Debug)]
                pub struct $call;

                impl Call for $call {
                    const PLANE: Plane = Plane::$plane;
                    const REQUEST: i32 = Self::ROW.request;
                    const RESPONSE: i32 = Self::ROW.response;
                    type Request = $request;
                    type Reply = $reply;
                }

                impl $call {
                    const ROW: CallRow = CallRow {
                        plane: Plane::$plane,
                        request: RpcType::$request_type as i32,
                        request_message: MessageName::of::<$request>(),
                        response: RpcType::$response_type as i32,
                        response_message: MessageName::of::<$reply>(),
                        unordered: calls!(@is $($unordered)?),
                    };
                }
            )+

            pub(super) const TABLE: &[CallRow] = &[$($call::ROW),+];
        }
    };
    (@is unordered) => { true };
    (@is) => { false };
}

macro_rules! one_way {
    ($(
        $module:ident, $plane:ident: {$(
            $(#[$row_doc:meta])*
            $name:ident = $rpc_type:ident ($message:ty);
        )+}
    )+) => {
        $($(
            $(#[$row_doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl OneWay for $name {
                const PLANE: Plane = Plane::$plane;
                const RPC_TYPE: i32 = pb::$module::RpcType::$rpc_type as i32;
                type Message = $message;
            }
        )+)+

        /// All messages that are never answered.
        pub const ONE_WAY: &[OneWayRow] = &[$($(OneWayRow {
            plane: $name::PLANE,
            rpc_type: $name::RPC_TYPE,
            message: MessageName::of::<$message>(),
        }),+),+];
    };
}

calls! {
    /// Client to Drillbit, except where a row says otherwise.
    // wire: drill@051b164 exec/java-exec/.../rpc/user/UserRpcConfig.java
    user, User:
    /// The first request of a connection.
    Handshake = Handshake(pb::user::UserToBitHandshake) -> Handshake(pb::user::BitToUserHandshake);
    /// Starts a query; the reply names it.
    RunQuery = RunQuery(pb::user::RunQuery) -> QueryHandle(pb::shared::QueryId);
    /// Asks for the end of a query; always acknowledged.
    CancelQuery = CancelQuery(pb::shared::QueryId) -> Ack(pb::rpc::Ack), unordered;
    /// Drillbit to client: one batch of a result.
    QueryData = QueryData(pb::shared::QueryData) -> Ack(pb::rpc::Ack);
    /// What the server can do.
    GetServerMeta = GetServerMeta(pb::user::GetServerMetaReq) -> ServerMeta(pb::user::GetServerMetaResp);
    /// Drillbit to client: how a query ended.
    QueryResult = QueryResult(pb::shared::QueryResult) -> Ack(pb::rpc::Ack);
    /// Lets a query go on that a test paused.
    ResumePausedQuery = ResumePausedQuery(pb::shared::QueryId) -> Ack(pb::rpc::Ack);
    /// Plans a query without running it.
    GetQueryPlanFragments = GetQueryPlanFragments(pb::user::GetQueryPlanFragments) -> QueryPlanFragments(pb::user::QueryPlanFragments);
    /// Lists catalogs.
    GetCatalogs = GetCatalogs(pb::user::GetCatalogsReq) -> Catalogs(pb::user::GetCatalogsResp);
    /// Lists schemas.
    GetSchemas = GetSchemas(pb::user::GetSchemasReq) -> Schemas(pb::user::GetSchemasResp);
    /// Lists tables.
    GetTables = GetTables(pb::user::GetTablesReq) -> Tables(pb::user::GetTablesResp);
    /// Lists columns.
    GetColumns = GetColumns(pb::user::GetColumnsReq) -> Columns(pb::user::GetColumnsResp);
    /// Makes a prepared statement.
    CreatePreparedStatement = CreatePreparedStatement(pb::user::CreatePreparedStatementReq) -> PreparedStatement(pb::user::CreatePreparedStatementResp);
    /// One step of authentication.
    SaslMessage = SaslMessage(pb::shared::SaslMessage) -> SaslMessage(pb::shared::SaslMessage);
    /// Between our own programs: what the node knows of itself and of its cluster.
    GetStatus = GetStatus(pb::status::GetStatus) -> Status(pb::status::ClusterStatus);
    /// Between our own programs: the node takes no new work, ends what runs, and leaves.
    Drain = Drain(pb::rpc::Ack) -> Ack(pb::rpc::Ack);
}

calls! {
    /// Drillbit to Drillbit, both directions.
    // wire: drill@051b164 exec/java-exec/.../rpc/control/ControlRpcConfig.java
    control, Control:
    /// The first request of a connection.
    Handshake = Handshake(pb::control::BitControlHandshake) -> Handshake(pb::control::BitControlHandshake);
    /// Starts fragments; acknowledged once all of them can receive data.
    InitializeFragments = ReqInitializeFragments(pb::control::InitializeFragments) -> Ack(pb::rpc::Ack);
    /// Ends one fragment.
    CancelFragment = ReqCancelFragment(pb::bit::FragmentHandle) -> Ack(pb::rpc::Ack), unordered;
    /// Tells a sender that a receiver wants no more.
    ReceiverFinished = ReqReceiverFinished(pb::control::FinishedReceiver) -> Ack(pb::rpc::Ack);
    /// Reports on a fragment to the foreman.
    FragmentStatus = ReqFragmentStatus(pb::control::FragmentStatus) -> Ack(pb::rpc::Ack);
    /// Asks for the profile of a query.
    QueryStatus = ReqQueryStatus(pb::shared::QueryId) -> RespQueryStatus(pb::shared::QueryProfile);
    /// Cancels a query at its foreman; `ok` is false where the query is not known.
    QueryCancel = ReqQueryCancel(pb::shared::QueryId) -> Ack(pb::rpc::Ack), unordered;
    /// Lets a fragment go on that a test paused.
    UnpauseFragment = ReqUnpauseFragment(pb::bit::FragmentHandle) -> Ack(pb::rpc::Ack);
    /// A message between extensions, told apart by its own number.
    Custom = ReqCustom(pb::control::CustomMessage) -> RespCustom(pb::control::CustomMessage);
    /// One step of authentication.
    SaslMessage = SaslMessage(pb::shared::SaslMessage) -> SaslMessage(pb::shared::SaslMessage);
    /// Between our own nodes: opens a channel to a service of the peer.
    OpenChannel = OpenChannel(pb::control::OpenChannel) -> ChannelOpened(pb::control::ChannelOpened);
    /// Between our own nodes: reports on many fragments to their foreman.
    FragmentStatuses = FragmentStatuses(pb::control::FragmentStatuses) -> StatusesTaken(pb::control::StatusesTaken);
    /// Between our own nodes: ends all fragments of a query, also those that are still to come; `ok` is false where
    /// nothing is left of it, so that nothing is going to be reported of it either.
    CancelFragments = CancelFragments(pb::shared::QueryId) -> Ack(pb::rpc::Ack), unordered;
    /// Between our own nodes: a sign of life.
    Beat = Beat(pb::control::Beat) -> Beat(pb::control::BeatAnswer), unordered;
}

calls! {
    /// Drillbit to Drillbit, from the side that connected.
    // wire: drill@051b164 exec/java-exec/.../rpc/data/DataRpcConfig.java
    data, Data:
    /// The first request of a connection.
    Handshake = Handshake(pb::data::BitClientHandshake) -> Handshake(pb::data::BitServerHandshake);
    /// One batch for one or several receiving fragments.
    RecordBatch = ReqRecordBatch(pb::data::FragmentRecordBatch) -> DataAckWithCredit(pb::data::AckWithCredit);
    /// One step of authentication.
    SaslMessage = SaslMessage(pb::shared::SaslMessage) -> SaslMessage(pb::shared::SaslMessage);
    /// Bloom filters of a join for the scans of its probe side.
    RuntimeFilter = ReqRuntimeFilter(pb::data::RuntimeFilterBDef) -> DataAckWithCredit(pb::data::AckWithCredit);
    /// Between our own nodes: a receiver opens a stream; acknowledged once the sender is there.
    OpenStream = OpenStream(pb::data::OpenStream) -> Ack(pb::rpc::Ack);
}

one_way! {
    data, Data: {
        /// One frame of a stream, from its sender: the request of [`data::RecordBatch`] with its field 1000 set.
        StreamBatch = ReqRecordBatch(pb::data::FragmentRecordBatch);
        /// More credit for a stream, from its receiver.
        Credit = Credit(pb::data::Credit);
        /// The receiver of a stream wants no more.
        CloseStream = CloseStream(pb::data::CloseStream);
    }
    control, Control: {
        /// One message of a channel: the raw body.
        ChannelMessage = ChannelMessage(pb::control::ChannelMessage);
        /// More credit for a channel, from the side that receives.
        ChannelCredit = ChannelCredit(pb::control::ChannelCredit);
        /// One side of a channel sends, or wants, no more.
        CloseChannel = CloseChannel(pb::control::CloseChannel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_known_number_and_message() {
        for row in TABLE.into_iter().flatten() {
            assert!(rpc_name(row.plane, row.request).is_some(), "{row:?}");
            assert!(rpc_name(row.plane, row.response).is_some(), "{row:?}");
            for message in [row.request_message, row.response_message] {
                assert!(is_described(message), "{row:?}");
            }
        }
        for row in ONE_WAY {
            assert!(rpc_name(row.plane, row.rpc_type).is_some(), "{row:?}");
            assert!(is_described(row.message), "{row:?}");
        }
    }

    fn is_described(message: MessageName) -> bool {
        let descriptors = crate::descriptors();
        descriptors
            .get_message_by_name(&message.to_string())
            .is_some()
    }

    #[test]
    fn request_numbers_are_unique_in_a_plane() {
        for rows in TABLE {
            for (i, row) in rows.iter().enumerate() {
                assert!(
                    rows[i + 1..]
                        .iter()
                        .all(|other| other.request != row.request),
                    "{row:?}"
                );
            }
        }
    }

    #[test]
    fn only_cancels_and_beats_have_no_order() {
        let rows = TABLE.into_iter().flatten();
        let unordered: Vec<_> = rows
            .filter(|row| unordered(row.plane, row.request))
            .filter_map(|row| rpc_name(row.plane, row.request))
            .collect();
        assert_eq!(
            unordered,
            [
                "CANCEL_QUERY",
                "REQ_CANCEL_FRAGMENT",
                "REQ_QUERY_CANCEL",
                "CANCEL_FRAGMENTS",
                "BEAT"
            ]
        );
        assert!(!super::unordered(Plane::User, 99));
    }

    #[test]
    fn bodies_are_found_by_mode_and_number() {
        let name = |plane, mode, number| body_message(plane, mode, number).map(|m| m.to_string());
        assert_eq!(
            name(Plane::User, RpcMode::Request, 3).as_deref(),
            Some("exec.user.RunQuery")
        );
        assert_eq!(
            name(Plane::User, RpcMode::Response, 7).as_deref(),
            Some("exec.shared.QueryId")
        );
        assert_eq!(
            name(Plane::Data, RpcMode::Response, 6).as_deref(),
            Some("exec.bit.data.AckWithCredit")
        );
        assert_eq!(
            name(Plane::Data, RpcMode::Request, 1001).as_deref(),
            Some("exec.bit.data.Credit")
        );
        assert_eq!(
            name(Plane::Control, RpcMode::ResponseFailure, 0).as_deref(),
            Some("exec.shared.DrillPBError")
        );
        assert_eq!(
            name(Plane::Control, RpcMode::Ping, 0).as_deref(),
            Some("exec.rpc.Ack")
        );
        assert_eq!(name(Plane::Data, RpcMode::Request, 99), None);
    }

    #[test]
    fn names_are_those_of_drill() {
        assert_eq!(rpc_name(Plane::User, 22), Some("CREATE_PREPARED_STATEMENT"));
        assert_eq!(rpc_name(Plane::Control, 4), None);
    }
}

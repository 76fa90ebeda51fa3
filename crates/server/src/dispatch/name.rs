//! What commands and states are called outside: in events, metrics and client commands.

use kvatlas_controller::events::EventState;
use kvatlas_controller::plan::CommandKind;

/// The name of a command, which is also its path.
pub fn command(kind: CommandKind) -> &'static str {
    match kind {
        CommandKind::Clear => "clear",
        CommandKind::Pin => "pin",
        CommandKind::Compress => "compress",
        CommandKind::Decompress => "decompress",
        CommandKind::Move => "move",
        CommandKind::Health => "health",
    }
}

/// The name of a state.
pub fn state(state: EventState) -> &'static str {
    match state {
        EventState::Running => "running",
        EventState::Finished => "finished",
        EventState::Failed => "failed",
        EventState::Partial => "partial",
    }
}

# Sourced by scripts/cassandra and scripts/s3, which are called as
#   NAME start|stop|status FOLDER [PORT]
# start returns when the server answers, and again when it already does. One server for each FOLDER; it listens on 127.0.0.1 alone.
# Only the process recorded in FOLDER/pid is ever ended; its start time is recorded with it, because ids are used again.
set -euo pipefail
tool=$(basename "$0")
die() { printf '%s: %s\n' "$tool" "$*" >&2; exit 1; }
say() { printf '%s: %s\n' "$tool" "$*" >&2; }
cache=${OUTBOARD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/outboard}

arguments() { # usual port, then what was typed
  action=${2:-} folder=${3:-} port=${4:-}
  case $action in start | stop | status) ;; *) action= ;; esac
  [ -n "$action" ] && [ -n "$folder" ] || { echo "usage: scripts/$tool start|stop|status FOLDER [PORT]" >&2; exit 2; }
  [ "$action" != start ] || mkdir -p "$folder"
  [ -d "$folder" ] || { [ "$action" != status ] || { echo stopped; exit 3; }; exit 0; }
  folder=$(cd "$folder" && pwd)
  [ -n "$port" ] || port=$(cat "$folder/port" 2>/dev/null || echo "$1")
}
start_time() { # of a process; nothing when it is gone
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The name in it may have spaces.
  set -- ${stat##*) }
  [ "$1" = Z ] || echo "${20}"
}
alive() {
  local pid started
  { read -r pid started <"$folder/pid"; } 2>/dev/null || return 1
  [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ]
}
spawn() { # command ...
  # One that was just killed may take a moment to let go of it.
  for _ in $(seq 100); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break; sleep 0.1; done
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then die "port $port is taken"; fi
  setsid nohup "$@" >>"$folder/log" 2>&1 </dev/null &
  echo "$! $(start_time $!)" >"$folder/pid"
  echo "$port" >"$folder/port"
}
wait_ready() { # seconds, command ...
  local tries=$(($1 * 5))
  shift
  for _ in $(seq "$tries"); do
    alive || { tail -n 20 "$folder/log" >&2; die "it ended while starting: see $folder/log"; }
    ! "$@" >/dev/null 2>&1 || return 0
    sleep 0.2
  done
  tail -n 20 "$folder/log" >&2
  die "it was not ready in time: see $folder/log"
}
serves() { # seconds, command ... : waits for the server that runs; fails when none does, or when it ends, as one does that was just killed
  alive || return 1
  local tries=$(($1 * 5))
  shift
  for _ in $(seq "$tries"); do
    ! "$@" >/dev/null 2>&1 || return 0
    alive || return 1
    sleep 0.2
  done
  die "it runs and was not ready in time: see $folder/log"
}
stop_it() { # seconds before it is killed
  local pid
  alive || { rm -f "$folder/pid"; return 0; }
  read -r pid _ <"$folder/pid"
  kill "$pid" 2>/dev/null || :
  for _ in $(seq $(($1 * 10))); do alive || break; sleep 0.1; done
  ! alive || kill -9 "$pid" 2>/dev/null || :
  rm -f "$folder/pid"
}
status_of_it() { if alive; then echo "running on 127.0.0.1:$port"; else echo stopped; exit 3; fi; }
need() { # command, Debian packages ...
  ! command -v "$1" >/dev/null || return 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "please install $1 (Debian packages: ${*:2})"
  say "installing ${*:2}"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${@:2}"; } >&2 ||
    die "apt-get could not install ${*:2}"
}

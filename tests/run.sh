#!/bin/sh
# Installs what is missing, builds, and runs the tests.
#   sh tests/run.sh                    what CI runs
#   sh tests/run.sh --all              the long ones too
#   sh tests/run.sh --group NAME ...   only these groups
#   sh tests/run.sh --debian 13 ...    the same in a root of Debian 13 (OpenSSL 3.5, gcc 14) that debootstrap makes; needs root
#   sh tests/run.sh --list             the groups
# Ends with the ten slowest tests and a line that counts; its exit status is 0 only when nothing failed.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
results=$root/build/results
cd "$root"

# name, in the default run, what it does
groups() {
    cat <<'LIST'
format       default  the source is formatted as .clang-format says
unit         default  unit tests, built with ASan and UBSan
integration  default  the real programs with real clients, built with ASan and UBSan
release      default  release build: the integration tests marked release, installing
fuzz         default  every fuzz target for a few seconds
quickstart   default  conf/quickstart.sh, twice
browser      default  headless Chromium against the real programs
bench        default  the measuring scripts, for a moment each, that they run; that a forbidden key costs what an unknown one does; 20 s of chaos
fuzz-long    all      every fuzz target for two minutes
release-all  all      release build: unit tests, every integration test, limits in time without slack; the key server's CPU and latency
chaos        all      each fault of two key servers under load, with its limits in time; then random ones for ten minutes
tidy         all      clang-tidy over everything
testssl      all      testssl.sh against the proxy's default configuration; its report stays in build/testssl
systemd      all      the units in a systemd of their own, if root may make one here
debian13     all      --debian 13: the default groups on Debian 13
LIST
}

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0"
}

chosen=
which=default
debian=
while [ $# -gt 0 ]; do
    case $1 in
    --list)
        groups
        echo "With --debian 13 they run on Debian 13: the default ones, those named, or with --all all of them but debian13."
        exit 0
        ;;
    --help) usage; exit 0 ;;
    --all) which=all ;;
    --group)
        [ $# -gt 1 ] || { echo "run.sh: --group wants a name" >&2; exit 2; }
        groups | grep -q "^$2 " || { echo "run.sh: no group $2; there are:" >&2; groups >&2; exit 2; }
        chosen="$chosen $2"
        shift
        ;;
    --debian)
        [ "${2:-}" = 13 ] || { echo "run.sh: --debian ${2:-}: only 13 is supported" >&2; exit 2; }
        debian=$2
        shift
        ;;
    *) usage; exit 2 ;;
    esac
    shift
done
if [ -z "$chosen" ]; then
    chosen=$(groups | awk -v which=$which -v debian="$debian" '
        ($2 == "default" || which == "all") && !(debian && $1 == "debian13") {print $1}' | tr '\n' ' ')
fi
if [ -n "$debian" ]; then
    case " $chosen " in
    *" debian13 "*) echo "run.sh: the group debian13 is what --debian 13 does; it cannot run in there" >&2; exit 2 ;;
    esac
    # shellcheck disable=SC2086  # one word a group
    exec sh tests/debian13.sh $chosen
fi

began_at=$(date +%s)
say() {
    passed=$(($(date +%s) - began_at))
    printf '==> %d:%02d %s\n' $((passed / 60)) $((passed % 60)) "$*"
}

# record NAME COMMAND...: runs it as one test, with its time and outcome in the results
record() {
    name=$1
    shift
    began=$(date +%s.%N)
    if "$@" >"$results/$name.log" 2>&1; then outcome=passed; else outcome=failed; fi
    printf '%s\t%s\t%s\t%s\n' "$name" "$outcome" "$began" "$(date +%s.%N)" >>"$results/recorded.tsv"
    [ $outcome = passed ] || { say "FAILED: $name"; tail -n 100 "$results/$name.log"; }
}

# What later groups need is built while tests run that mostly wait. Its failures are told by those groups.
# ahead GROUP COMMAND...: if the group is among those that run
ahead=
ahead() {
    case " $chosen " in
    *" $1 "*) ;;
    *) return 0 ;;
    esac
    shift
    previous=$ahead
    { [ -z "$previous" ] || while kill -0 "$previous" 2>/dev/null; do sleep 1; done; nice "$@"; } >/dev/null 2>&1 &
    ahead=$!
}

# build PRESET [OPTION...]
build() {
    [ -z "$ahead" ] || { wait "$ahead" || :; ahead=; }
    say "building: cmake --preset $*"
    launcher=
    [ "$1" != release ] || launcher=ccache
    { CMAKE_C_COMPILER_LAUNCHER=$launcher cmake --preset "$@" && cmake --build --preset "$1"; } >"$results/build-$1.log" 2>&1 || {
        tail -n 100 "$results/build-$1.log"
        echo "run.sh: the $1 build failed" >&2
        exit 1
    }
}

# A runner that broke before it could report (no results, no tests) counts as a failed test of its own name.
# reported NAME STATUS RESULTS: 0 and 1 (pytest) or 8 (ctest) are in the results already.
reported() {
    case $2 in
    0 | 1 | 8) [ ! -s "$3" ] || return 0 ;;
    esac
    record "$1-runner" sh -c "echo 'ended with status $2'; false"
}

# unit_tests PRESET
unit_tests() {
    status=0
    ctest --test-dir "build/$1" --output-on-failure --no-tests=error --output-junit "$results/unit-$1.xml" -j6 || status=$?
    reported "unit-$1" "$status" "$results/unit-$1.xml"
}

# Most tests wait for something most of their time, so six files run side by side, each in a process of its own.
# integration NAME PRESET SANITIZED PYTEST-OPTION...
integration() {
    name=$1
    preset=$2
    sanitized=$3
    shift 3
    status=0
    KEYLESS_BUILD=$root/build/$preset KEYLESS_SANITIZED=$sanitized \
        /usr/bin/python3 -m pytest -q -p no:cacheprovider -n 6 --dist loadfile --timeout 180 --junitxml "$results/$name.xml" \
        "$@" tests/integration || status=$?
    reported "$name" "$status" "$results/$name.xml"
}

# What is right to one version of clang's tools is not to another; .clang-format and .clang-tidy are for Debian 12's.
# is_ours GROUP TOOL: whether it is that version; if not, says so
is_ours() {
    found=$("$2" --version | grep version)
    case $found in
    *"version 14."*) return 0 ;;
    esac
    say "$1: skipped, as $2 here is not version 14: $found"
    return 1
}

group_format() {
    is_ours format clang-format || return 0
    say "format"
    record format sh -c 'find common proxy keyserver tests -name "*.[ch]" | xargs clang-format --dry-run --Werror'
}

# Beside unit tests and integration tests, whichever come first.
build_ahead() {
    [ -z "$ahead" ] || return 0
    ahead release sh -c 'CMAKE_C_COMPILER_LAUNCHER=ccache cmake --preset release -DKEYLESS_TESTS=OFF && cmake --build --preset release'
    ahead fuzz sh -c 'cmake --preset fuzz && cmake --build --preset fuzz'
    ahead quickstart sh -c 'CMAKE_C_COMPILER_LAUNCHER=ccache cmake --preset release -B build/quickstart -DKEYLESS_TESTS=OFF &&
        cmake --build build/quickstart'
}

group_unit() {
    build dev
    build_ahead
    say "unit tests (ASan, UBSan)"
    unit_tests dev
}

group_integration() {
    [ -n "$ahead" ] || build dev # else the unit tests have it, and the builds ahead need not be waited for
    build_ahead
    say "integration tests (ASan, UBSan)"
    if with_browser; then
        integration integration dev 1 -m "browser or not browser"
    else
        integration integration dev 1
    fi
}

# Whether the tests with Chromium run beside the others.
with_browser() {
    case " $chosen " in
    *" integration "*" browser "*) return 0 ;;
    esac
    return 1
}

group_release() {
    build release -DKEYLESS_TESTS=OFF
    say "integration tests (release)"
    integration integration-release release 0 -m release
    record install sh -c "DESTDIR='$results/installed' cmake --install build/release &&
        '$results/installed/usr/local/sbin/keyless-proxy' -V && '$results/installed/usr/local/sbin/keyless-keyserver' -V &&
        test -s '$results/installed/usr/local/share/doc/keyless/conf/proxy.yaml' &&
        test -s '$results/installed/usr/local/lib/systemd/system/keyless-proxy.service'"
}

# fuzz_target TARGET SECONDS
fuzz_target() {
    name=$(basename "$1")
    say "fuzzing: $name for $2 s"
    mkdir -p "build/corpus/$name" "$results/$name"
    record "$name" "$1" -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$results/$name/" \
        -print_final_stats=1 "build/corpus/$name"
}

# Two at a time: fuzz SECONDS
fuzz() {
    build fuzz
    other=
    for target in build/fuzz/tests/fuzz/*fuzz_*; do
        [ -x "$target" ] && [ ! -d "$target" ] || continue
        if [ -n "$other" ]; then
            fuzz_target "$target" "$1"
            wait "$other"
            other=
        else
            fuzz_target "$target" "$1" &
            other=$!
        fi
    done
    [ -z "$other" ] || wait "$other"
}

group_fuzz() {
    fuzz 2
}

group_fuzz_long() {
    fuzz 120
}

group_quickstart() {
    [ -z "$ahead" ] || { wait "$ahead" || :; ahead=; }
    say "quickstart"
    record quickstart sh conf/quickstart.sh
    record quickstart-again sh conf/quickstart.sh
}

group_release_all() {
    build release -DKEYLESS_TESTS=ON
    say "unit tests (release)"
    unit_tests release
    say "all integration tests (release)"
    export KEYLESS_STRICT=1
    integration integration-release-all release 0
    unset KEYLESS_STRICT
    say "CPU and latency of the key server"
    record keyserver-cpu sh tests/bench/keyserver-cpu.sh --strict
    record keyserver-flood sh tests/bench/keyserver-flood.sh --strict
}

group_tidy() {
    is_ours tidy clang-tidy || return 0
    build dev
    say "clang-tidy"
    record tidy sh -c 'find common proxy keyserver -name "*.c" | xargs -n 1 -P 2 clang-tidy -p build/dev --quiet'
}

group_browser() {
    ! with_browser || return 0
    build dev
    say "headless Chromium (ASan, UBSan)"
    integration browser dev 1 -m browser
}

group_bench() {
    sh conf/install-packages.sh bench
    say "measuring scripts"
    bench_counts &
    record bench-many-names sh -c 'sh tests/bench/many-names.sh --names 50 --visited 20 | tee /dev/stderr | grep -q "median of the ratios"'
    record bench-faults sh -c 'sh tests/bench/faults.sh --rounds 1 --seconds 1 --fault "kill -9" --fault "cut line" --strict |
        tee /dev/stderr | grep -c "^| [kc].* | [0-9]* | 0 | .* ms | .* ms | .*% | .* s |$" | grep -qx 2'
    record bench-chaos sh tests/bench/chaos.sh 20
    wait $!
}

# Those whose times nobody looks at here, beside the others.
bench_counts() {
    record bench-haproxy sh -c 'sh tests/bench/cpu-against-haproxy.sh 1 100 | tee /dev/stderr |
        grep -c "^| [ER].* us | .* us | [0-9.]* | .* us |$" | grep -qx 2'
    record bench-keyserver-cpu sh -c 'sh tests/bench/keyserver-cpu.sh 1 1 | tee /dev/stderr |
        grep -c "^| .*, 0x6[13] | .* us | .* |$" | grep -qx 4'
    record bench-keyserver-flood sh -c 'sh tests/bench/keyserver-flood.sh 1 1 | tee /dev/stderr | grep -q "^| flood to program .* [0-9.]* |"'
    record bench-forbidden-keys sh tests/bench/forbidden-keys.sh
    record bench-callgrind sh -c 'sh tests/bench/callgrind.sh p256 20 | tee /dev/stderr | grep -q "per handshake"'
}

group_chaos() {
    say "the table of faults"
    record faults sh tests/bench/faults.sh --strict --strict-times
    say "ten minutes of chaos"
    record chaos sh tests/bench/chaos.sh 600
    say "chaos: $(grep "clients served" "$results/chaos.log")"
}

group_testssl() {
    command -v testssl >/dev/null || sh conf/install-packages.sh testssl
    build release
    say "testssl.sh"
    record testssl /usr/bin/python3 tests/testssl.py build/release build/testssl
}

group_systemd() {
    [ -x /lib/systemd/systemd ] || sh conf/install-packages.sh systemd
    build release
    say "systemd"
    record systemd sh -c 'sh tests/systemd.sh || [ $? -eq 77 ]'
    ! grep "not run:" "$results/systemd.log" || say "systemd: skipped"
}

group_debian13() {
    say "Debian 13"
    record debian13 sh tests/run.sh --debian 13
    say "Debian 13: $(tail -n 1 "$results/debian13.log")"
}

# What quickstart builds is what the release build has, elsewhere.
export CCACHE_DIR="$root/build/ccache" CCACHE_NOHASHDIR=1

rm -rf "$results"
mkdir -p "$results"
: >"$results/recorded.tsv"
sh conf/install-packages.sh test
case " $chosen " in
*tidy*) command -v clang-tidy >/dev/null || sh conf/install-packages.sh tidy ;;
esac
case " $chosen " in
*browser*) command -v chromium >/dev/null || sh conf/install-packages.sh browser ;;
esac

for group in $chosen; do
    "group_$(echo "$group" | tr - _)"
done
/usr/bin/python3 tests/summary.py "$results"

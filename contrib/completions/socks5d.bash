# bash completion of socks5d(8): options, and the words that --log-level takes. It needs nothing but bash.

_socks5d() {
    local options='
        -h --help -v --version -l --listen -p --port -L --metp-listen -P --metp-port --http --http-host --http-pac -u --user --users
        --users-fixed --rules --state --run-as --pid-file --takeover --access-log --access-log-format --log-format --hash-password --config
        --check-config --print-config --trust --bind-out --bind-ports --bind-advertise --udp-ports --udp-advertise
        --buffer-size --buffer-memory --max-connections --max-connections-per-ip --max-metp-sessions
        --dns-threads --dns-queue --allow-local --local-for --log-entries --log-level --grace --drain-wait --drain-limit
        --handshake-timeout --resolve-timeout --connect-timeout --connect-total-timeout
        --idle-timeout --half-close-timeout --keepalive --ack-timeout --linger-timeout
        --metp-login-timeout --metp-idle-timeout --subscriber-timeout
        --dns-cache --dns-negative-cache --prefer --trust-any-login --http-connect --allow-resolve
        --allow-bind --bind-timeout --udp --udp-filter --udp-idle-timeout --udp-log
        --max-associations --auth-threads'
    local levels='off error warn info debug trace'

    # COMP_WORDS is split at = and : too, as COMP_WORDBREAKS says. Here only blanks part words.
    local line=${COMP_LINE:0:COMP_POINT}
    local typed=${line##*[[:blank:]]}
    local cur=$typed
    local -a words
    read -ra words <<<"${line%"$typed"}"
    local before=${words[${#words[@]} - 1]}
    # --option=value is an option and its value.
    [[ $cur == --*=* ]] && before=${cur%%=*} cur=${cur#*=}

    if [[ $before == --users || $before == --rules || $before == --state || $before == --takeover || $before == --pid-file || $before == --config || $before == --access-log ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$cur"))
        return
    fi
    local choice=
    case $before in
        --log-level) choice=$levels ;;
        --access-log-format) choice='tsv json' ;;
        --log-format) choice='text json journal' ;;
        --local-for) choice='loopback nobody all' ;;
        --prefer) choice='ipv4 ipv6 system' ;;
        --udp | --allow-bind | --allow-resolve) choice='on off' ;;
        --udp-filter) choice='any address port' ;;
        -h | --help | -v | --version | --users-fixed | --hash-password | --check-config | --print-config | --allow-local | --trust-any-login | --http-connect)
            [[ $cur == "$typed" ]] && choice=$options
            ;;
        # What follows is a value that nobody can guess.
        -*) ;;
        *) choice=$options ;;
    esac
    # bash replaces what it takes for the word at the cursor, $2, which may be less than what was typed.
    COMPREPLY=($(compgen -P "${typed%"$cur"}" -W "$choice" -- "$cur"))
    COMPREPLY=("${COMPREPLY[@]#"${typed%"$2"}"}")
}

complete -F _socks5d socks5d

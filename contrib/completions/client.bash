# bash completion of client(1): options, and the words that some of them take. It asks no server and needs
# nothing but bash.

_client() {
    local options='
        -h --help -v --version -H --host -p --port --wait -u --user --password-file -q --quiet --json
        -m --metrics --metrics-all --user-metrics --connections -g --logs --info --capabilities
        -f --follow -n --last -w --watch
        -l --users -a --add-user -d --delete-user -r --set-role --password
        --generate --lock --unlock --import --limits --set-limit --reset-usage --reload --reload-cut
        --rules --rules-test --rule-insert --rule-delete
        --kill --kill-user --config --set --save --trust --trust-add --trust-delete -c --change-buffer --shutdown'
    local keys='
        buffer-size buffer-memory max-connections max-connections-per-ip max-metp-sessions
        dns-threads dns-queue allow-local local-for log-entries log-level grace drain-wait drain-limit
        handshake-timeout resolve-timeout connect-timeout connect-total-timeout idle-timeout
        half-close-timeout keepalive ack-timeout linger-timeout metp-login-timeout metp-idle-timeout
        subscriber-timeout dns-cache dns-negative-cache prefer trust-any-login http-connect allow-resolve
        allow-bind bind-timeout udp udp-filter udp-idle-timeout udp-log
        max-associations auth-threads'
    local levels='off error warn info debug trace'
    local verbs='
        GET_METRICS GET_LOGS USERS CHANGE-BUFFER ADD-USER DELETE-USER SET-ROLE QUIT
        CAPA PING INFO USER-METRICS CHANGE-PASSWORD CONNECTIONS KILL CONFIG SUBSCRIBE UNSUBSCRIBE
        SHUTDOWN TRUST LOCK-USER UNLOCK-USER GENERATE-PASSWORD IMPORT RELOAD
        LIMITS SET-LIMIT RESET-USAGE RULES RULE'

    # COMP_WORDS is split at = and : too, as COMP_WORDBREAKS says. Here only blanks part words.
    local line=${COMP_LINE:0:COMP_POINT}
    local typed=${line##*[[:blank:]]}
    local cur=$typed word
    local -a words
    read -ra words <<<"${line%"$typed"}"
    # --option=value is an option and its value.
    [[ $cur == --*=* ]] && words+=("${cur%%=*}") cur=${cur#*=}

    # What the next word is.
    local next=option
    for word in "${words[@]:1}"; do
        # The password of -a may be missing.
        [[ $next == pass && $options =~ [[:space:]]"${word%%=*}"([[:space:]]|$) ]] && next=option
        case $next in
            verb | nothing) next=nothing ;;
            user-role) next=role ;;
            user-pass) next=pass ;;
            user-limits) next=value ;;
            role | value | pass | host | file | setting | saved) next=option ;;
            *)
                # An option, or the value that one before it may have.
                case $word in
                    --) next=verb ;;
                    -H | --host) next=host ;;
                    --password-file | --import) next=file ;;
                    -r | --set-role) next=user-role ;;
                    -a | --add-user) next=user-pass ;;
                    -p | --port | -u | --user | -d | --delete-user | --password) next=value ;;
                    --generate | --lock | --unlock | --reset-usage) next=value ;;
                    --set-limit | --rule-insert | --rule-delete) next=user-limits ;;
                    --rules-test) next=value ;;
                    --wait | -n | --last | --kill | --kill-user | --trust-add | --trust-delete | -c | --change-buffer) next=value ;;
                    --config) next=key ;;
                    --save) next=saved ;;
                    --set) next=setting ;;
                    *) next=option ;;
                esac
                ;;
        esac
    done

    local -a offer=()
    case $next in
        option) [[ $cur == "$typed" ]] && offer=(-W "$options") ;;
        saved) offer=(-W "$keys") ;;
        key)
            offer=(-W "$keys")
            [[ $cur == "$typed" && $cur == -* ]] && offer=(-W "$options")
            ;;
        pass) [[ $cur == "$typed" && $cur == -* ]] && offer=(-W "$options") ;;
        verb) offer=(-W "$verbs") ;;
        role) offer=(-W 'user admin') ;;
        host) offer=(-A hostname) ;;
        # bash knows better than this function how to complete and quote names of files.
        file) compopt -o default ;;
        setting)
            case $cur in
                log-level=*) offer=(-W "$levels") cur=${cur#*=} ;;
                allow-local=* | allow-bind=* | allow-resolve=* | http-connect=* | trust-any-login=* | udp=*) offer=(-W 'on off') cur=${cur#*=} ;;
                local-for=*) offer=(-W 'loopback nobody all') cur=${cur#*=} ;;
                prefer=*) offer=(-W 'ipv4 ipv6 system') cur=${cur#*=} ;;
                udp-filter=*) offer=(-W 'any address port') cur=${cur#*=} ;;
                *=*) ;;
                *)
                    offer=(-W "$(compgen -S = -W "$keys")")
                    compopt -o nospace
                    ;;
            esac
            ;;
    esac
    # bash replaces what it takes for the word at the cursor, $2, which may be less than what was typed.
    COMPREPLY=($(compgen -P "${typed%"$cur"}" "${offer[@]}" -- "$cur"))
    COMPREPLY=("${COMPREPLY[@]#"${typed%"$2"}"}")
}

complete -F _client client

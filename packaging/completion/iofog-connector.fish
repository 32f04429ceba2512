# fish completion for iofog-connector

function __iofog_connector_mappings --description "Ids and names of the daemon's mappings"
    set -l words (commandline -opc)
    set -l settings
    for option in --config --state
        if set -l at (contains -i -- $option $words); and set -q words[(math $at + 1)]
            set -a settings $option $words[(math $at + 1)]
        end
    end
    $words[1] mapping list $settings 2>/dev/null | tail -n +2 | while read -l -d \t id name type rest
        printf '%s\t%s\n' $id "$type $name"
        test -n "$name"; and printf '%s\t%s\n' $name $type
    end
end

function __iofog_connector_command --description "Whether it is one of these commands"
    set -l words (commandline -opc)
    set -q words[2]; and contains -- $words[2] $argv
end

function __iofog_connector_mapping --description "Whether it is one of these actions of mapping"
    set -l words (commandline -opc)
    set -q words[3]; and test $words[2] = mapping; and contains -- $words[3] $argv
end

function __iofog_connector_agent --description "Whether it is one of these actions of agent; or, without any, to run it"
    __iofog_connector_command agent; or return
    set -l action
    for word in check status
        __fish_seen_subcommand_from $word; and set action $word
    end
    test "$action" = "$argv"; or contains -- "$action" $argv
end

complete -c iofog-connector -f
complete -c iofog-connector -s h -l help -d "Print help"
complete -c iofog-connector -s v -l version -n __fish_use_subcommand -d "Print version and licence"

set -l commands start stop reload status check mapping cert agent demo version help
set -l about "Run the daemon in the foreground" "Stop the daemon and wait until it has stopped" \
    "Make the daemon read its files again" "Print whether the daemon runs, and its state" \
    "Validate settings, certificates, mappings and ports" "List, add, remove or show mappings" \
    "Make a self-signed certificate and its key" "Dial out to a Connector and expose a local service" \
    "Run a Connector, an agent and a web page to try" "Print version and licence" "Print help"
for at in (seq (count $commands))
    complete -c iofog-connector -n __fish_use_subcommand -a $commands[$at] -d $about[$at]
    complete -c iofog-connector -n "test (count (commandline -opc)) = 2; and __iofog_connector_command help" -a $commands[$at] -d $about[$at]
end

set -l daemon "__iofog_connector_command start stop reload status check mapping cert"
complete -c iofog-connector -n "$daemon" -l config -r -F -d "Settings file"
complete -c iofog-connector -n "$daemon" -l state -x -a "(__fish_complete_directories)" -d "State folder"
complete -c iofog-connector -n "__iofog_connector_command start stop reload status check" -l pid-file -r -F -d "Pid file"

complete -c iofog-connector -n "__iofog_connector_command start" -l user -x -a "(__fish_complete_users)" -d "User to change to"
complete -c iofog-connector -n "__iofog_connector_command start; or __iofog_connector_agent" -l log-file -r -F -d "Write the log to this file"
complete -c iofog-connector -n "__iofog_connector_command start; or __iofog_connector_agent" -l log-level -x -a "error warn info debug trace" -d "Least severity to log"
complete -c iofog-connector -n "__iofog_connector_command start; or __iofog_connector_agent" -l log-format -x -a "text json" -d "What lines of the log look like"
complete -c iofog-connector -n "__iofog_connector_command stop" -l timeout -x -d "Seconds to wait"
complete -c iofog-connector -n "__iofog_connector_command stop" -l kill -d "Kill it after that"
complete -c iofog-connector -n "__iofog_connector_command status mapping" -l json -d "For programs"
complete -c iofog-connector -n "__iofog_connector_command status" -l lock -d "Only test the lock"

complete -c iofog-connector -n "__iofog_connector_command cert" -l name -x -a "(__fish_print_hostnames)" -d "Host name in the certificate"
complete -c iofog-connector -n "__iofog_connector_command cert" -l address -x -d "IP address in the certificate"
complete -c iofog-connector -n "__iofog_connector_command cert" -l days -x -d "How long it is valid"
complete -c iofog-connector -n "__iofog_connector_command cert" -l complete -d "Only make what is missing"

complete -c iofog-connector -n "__iofog_connector_command mapping; and not __iofog_connector_mapping list add remove show" -a "list add remove show"
complete -c iofog-connector -n "__iofog_connector_mapping show remove" -a "(__iofog_connector_mappings)"
set -l add "__iofog_connector_mapping add"
complete -c iofog-connector -n "$add" -l private -d "Agents on both ports"
complete -c iofog-connector -n "$add" -l name -x -d "What people call it"
complete -c iofog-connector -n "$add" -l connections -x -d "Maximum of agents at each port"
complete -c iofog-connector -n "$add" -l threshold -x -d "Absence timeout of an agent, milliseconds"
complete -c iofog-connector -n "$add" -l port1 -x -d "This port for agents"
complete -c iofog-connector -n "$add" -l port2 -x -d "This port for users"
complete -c iofog-connector -n "$add" -l users -x -a "tls plain" -d "How users connect"
complete -c iofog-connector -n "$add" -l allow -x -d "Where users may come from"
complete -c iofog-connector -n "$add" -l proxy-protocol -x -a "v1 v2" -d "Tell the service the address of its user"
complete -c iofog-connector -n "$add" -l max-users -x -d "Sessions of one address at once"
complete -c iofog-connector -n "$add" -l wait-time -x -d "Seconds that a user waits for an agent"
complete -c iofog-connector -n "$add" -l idle-timeout -x -d "End idle sessions after so many seconds"

set -l agent __iofog_connector_agent
complete -c iofog-connector -n "$agent" -x -a "check status"
complete -c iofog-connector -n "$agent; or $agent check" -l config -r -F -d "Settings of the agent"
complete -c iofog-connector -n "$agent status" -l json -d "For programs"
complete -c iofog-connector -n "$agent" -l connector -x -a "(__fish_print_hostnames)" -d "Host and port"
complete -c iofog-connector -n "$agent" -l passcode-file -r -F -d "File that holds the passcode"
complete -c iofog-connector -n "$agent" -l to -x -a "(__fish_print_hostnames)" -d "Local service, host and port"
complete -c iofog-connector -n "$agent" -l listen -x -d "Local end of a private pipe, host and port"
complete -c iofog-connector -n "$agent" -l connections -x -d "Number to keep ready"
complete -c iofog-connector -n "$agent" -l ca -r -F -d "Certificate to trust"
complete -c iofog-connector -n "$agent" -l server-name -x -a "(__fish_print_hostnames)" -d "Name in the certificate"
complete -c iofog-connector -n "$agent" -l protocol -x -a "1 2" -d "Version of the pipe protocol"
complete -c iofog-connector -n "$agent" -l proxy-protocol -x -a "v1 v2" -d "Tell the service the address of its user"
complete -c iofog-connector -n "$agent" -l bind -x -a "(__fish_print_interfaces)" -d "Local IP address or network interface"
complete -c iofog-connector -n "$agent" -l metrics-listen -x -d "IP address and port of metrics"
complete -c iofog-connector -n "$agent" -l access-log -r -F -d "File that lists sessions"
complete -c iofog-connector -n "$agent" -l proxy -x -d "Proxy on the way out, socks5:// or http://"
complete -c iofog-connector -n "$agent; or $agent status" -l socket -r -F -d "Socket for the status"
complete -c iofog-connector -n "$agent" -l dev -d "Plain TCP instead of TLS"
complete -c iofog-connector -n "$agent" -l heartbeat -x -d "Interval, milliseconds"
complete -c iofog-connector -n "$agent" -l threshold -x -d "Heartbeat timeout, milliseconds"

complete -c iofog-connector -n "__iofog_connector_command demo" -l tls -d "With TLS"
complete -c iofog-connector -n "__iofog_connector_command demo" -l once -d "Fetch the page once and exit"

# bash completion for iofog-connector

# Ids and names of the daemon's mappings. compgen expands what it is given: only harmless words pass.
_iofog_connector_mappings()
{
	local option settings=()
	for ((option = 3; option < cword - 1; option++)); do
		case ${words[option]} in
			--config | --state) settings+=("${words[option]}" "${words[option + 1]}") ;;
		esac
	done
	"${words[0]}" mapping list "${settings[@]}" 2>/dev/null | tail -n +2 | cut -f 1,2 | tr '\t' '\n' |
		grep -x '[A-Za-z0-9._-][A-Za-z0-9._-]*'
}

_iofog_connector()
{
	local cur prev words cword
	_init_completion || return

	# The word before the cursor may want a value of its own.
	case $prev in
		--config | --pid-file | --log-file | --passcode-file | --ca | --access-log | --socket)
			_filedir
			return
			;;
		--state)
			_filedir -d
			return
			;;
		--user)
			COMPREPLY=($(compgen -u -- "$cur"))
			return
			;;
		--log-level)
			COMPREPLY=($(compgen -W "error warn info debug trace" -- "$cur"))
			return
			;;
		--log-format)
			COMPREPLY=($(compgen -W "text json" -- "$cur"))
			return
			;;
		--protocol)
			COMPREPLY=($(compgen -W "1 2" -- "$cur"))
			return
			;;
		--bind)
			_available_interfaces -a
			return
			;;
		--connector | --to | --listen | --server-name)
			_known_hosts_real -- "$cur"
			return
			;;
		--users)
			COMPREPLY=($(compgen -W "tls plain" -- "$cur"))
			return
			;;
		--proxy-protocol)
			COMPREPLY=($(compgen -W "v1 v2" -- "$cur"))
			return
			;;
		--name | --address | --days | --timeout | --connections | --heartbeat | --threshold | --port1 | --port2 | \
			--allow | --max-users | --wait-time | --idle-timeout | --proxy | --metrics-listen)
			return
			;;
	esac

	local command=${words[1]} options=
	if ((cword == 1)); then
		options="start stop reload status check mapping cert agent demo version help --help --version"
	else
		case $command in
			start) options="--config --state --pid-file --user --log-file --log-level --log-format --help" ;;
			stop) options="--config --state --pid-file --timeout --kill --help" ;;
			reload) options="--config --state --pid-file --help" ;;
			status) options="--config --state --pid-file --json --lock --help" ;;
			check) options="--config --state --pid-file --help" ;;
			cert) options="--config --state --complete --name --address --days --help" ;;
			mapping)
				case $cword:${words[2]} in
					2:*) options="list add remove show --help" ;;
					*:add)
						options="--config --state --private --name --connections --threshold --port1 --port2 --users"
						options+=" --allow --proxy-protocol --max-users --wait-time --idle-timeout --json --help"
						;;
					*:show | *:remove)
						options="--config --state --json --help"
						[[ $cur == -* ]] || options=$(_iofog_connector_mappings)
						;;
					*) options="--config --state --json --help" ;;
				esac
				;;
			agent)
				case ${words[2]} in
					check) options="--config --help" ;;
					status) options="--socket --json --help" ;;
					*)
						options="--config --connector --passcode-file --to --listen --connections --ca --server-name --bind"
						options+=" --proxy --protocol --proxy-protocol --dev --heartbeat --threshold --metrics-listen"
						options+=" --access-log --log-file --log-level --log-format --socket --help"
						((cword > 2)) || options+=" check status"
						;;
				esac
				;;
			demo) options="--tls --once --help" ;;
			help) ((cword > 2)) || options="start stop reload status check mapping cert agent demo" ;;
		esac
	fi
	COMPREPLY=($(compgen -W "$options" -- "$cur"))
}

complete -F _iofog_connector iofog-connector

# bash completion for iofog-connector

_iofog_connector()
{
	local cur prev words cword
	_init_completion || return

	# The word before the cursor may want a value of its own.
	case $prev in
		--config | --log-file | --passcode-file | --ca)
			_filedir
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
		--connector | --to | --listen)
			_known_hosts_real -- "$cur"
			return
			;;
		--name | --address | --connections | --heartbeat | --threshold)
			return
			;;
	esac

	local command=${words[1]} options=
	if ((cword == 1)); then
		options="start stop status check mapping cert agent demo version help --help --version"
	else
		case $command in
			start) options="--config --user --log-file --log-level --help" ;;
			stop | check) options="--config --help" ;;
			status) options="--config --json --help" ;;
			cert) options="--config --name --address --help" ;;
			mapping)
				if ((cword == 2)); then
					options="list add remove show --help"
				else
					options="--config --json --help"
				fi
				;;
			agent)
				options="--config --connector --passcode-file --to --listen --connections"
				options+=" --ca --dev --heartbeat --threshold --help"
				;;
			demo) options="--tls --once --help" ;;
		esac
	fi
	COMPREPLY=($(compgen -W "$options" -- "$cur"))
}

complete -F _iofog_connector iofog-connector

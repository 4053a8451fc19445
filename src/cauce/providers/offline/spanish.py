"""Spanish: words, cues and phrases. Word lists and cues are without accents, as questions are folded before they are read."""

import re

from cauce.providers.offline.tongue import Phrases, Tongue, word_set

SPANISH = Tongue(
    language="es",
    stemmer="spanish",
    stop=word_set(
        """el la los las un una unos unas y o u e ni pero si que de del a al en con sin por para sobre entre desde
        hasta hacia como cual cuales quien quienes cuando donde cuanto cuanta cuantos cuantas porque pues es
        son era eran fue ser soy eres somos esta estan este estos estas esto ese esa esos esas eso aquel
        aquella ha han he has hemos haber habia hay hubo me te se le les lo nos mi mis tu tus su sus mio mia
        yo ella ellos ellas nosotros usted ustedes ya muy mas menos tan tambien solo cada todo toda todos
        todas otro otra otros otras mismo misma algun alguna algunos algunas algo nada puedo puede pueden
        puedes podria podrias debo debe deben tengo tiene tienen tienes hola favor porfavor ok vale asi
        estoy estas sea sean hora horas mucho mucha muchos"""
    ),
    weak=word_set(
        """hacer hago hace hacen hacerlo usar uso usa usan utilizar utilizo utiliza quiero quieres necesito necesita
        necesitas poner pongo pone dar doy da funciona funcionan funcionar significa significan explica
        explicar explicame describe dime decir dice saber sabes se existe existen posible ayuda ayudame ver
        veo mirar encontrar nuevo nueva anadir anado cambiar cambio cambia configurar configuro configura
        configuracion crear creo crea cauce guia ejemplo pasa pasar ocurre sirve sirven manera forma cosa
        cosas pregunta respuesta informacion tipo exactamente defecto devolver devuelve soporta admite
        enviar envio envia permitir permito permite conectar conecto conecta apuntar activar activo
        habilitar abrir abro varios varias primero primera sitio lado diferencia proteger
        protejo fijar fijo recibir recibo hablame cuentame hablar llevar"""
    ),
    recall=word_set(
        """decir dije dijiste dicho digo contar conte contaste contado mencionar mencione mencionaste preguntar
        pregunte preguntaste preguntado recordar recuerdas recuerda acuerdas acordar antes escribi
        anteriormente comente"""
    ),
    synonyms=(
        "abrir abro abre",
        "proteger protejo protege",
        "fijar fijo poner pongo definir",
        "depuracion depurar debug",
        "configurar definir ajustar establecer",
        "configuracion ajustes ajuste opciones",
        "arrancar arranco iniciar inicio lanzar ejecutar empezar levantar comenzar",
        "apagar detener parar paro cerrar terminar finalizar",
        "instalar instalacion descargar",
        "desactivar desactivo deshabilitar deshabilito apagar",
        "crear creo generar hacer nueva new",
        "necesitar necesita requisito requisitos requerir",
        "usar uso usa utilizar utilizo utiliza",
        "cambiar modificar editar",
        "otro distinto",
        "clave claves llave token credencial contrasena key apikey",
        "cascada ruta cadena",
        "respaldo fallback alternativa reserva",
        "reanudar reanudo continuar seguir retomar retomo reconectar reconexion",
        "cancelar cancelo abortar interrumpir",
        "busqueda buscar busco descubrimiento descubrir detectar detecta encontrar encuentra discovery",
        "error errores estado codigo",
        "error errores problema",
        "fallo fallos fallar falla fallan",
        "borrar eliminar quitar quito",
        "listar lista ver disponibles mostrar soportados compatibles",
        "comando comandos orden cli",
        "carpeta directorio",
        "limite limites maximo tamano limitar mayor",
        "navegador web pagina",
        "coste costo precio dinero cuesta costar factura",
        "metricas prometheus monitorizar estadisticas cifras",
        "registro log logs registros",
        "estructurada json esquema",
        "herramienta herramientas funciones tools",
        "stream streaming flujo transmision streams",
        "latido latidos heartbeat heartbeats ping",
        "docker contenedor",
        "llamacpp llama",
        "lmstudio studio",
        "anthropic claude",
        "gemini google",
        "javascript js node typescript",
        "nombre llamar llamaba llamo llama apellido",
        "memoria recordar",
        "offline conexion respondedor",
        "guardar guarda guardan conservar almacenar",
        "esperar espera timeout timeouts tiempo lento limite tarda",
        "secreto secretos seguro segura seguridad",
        "exponer publico red remoto",
        "endpoint endpoints url direccion direcciones rutas",
        "nivel niveles",
        "alias apodo",
        "reiniciar recargar",
        "salud estado vivo",
        "archivo fichero",
        "enviar mandar mando",
        "vivir vivo vive ciudad casa",
        "edad anos cumpleanos nacer naci",
        "elegir escoger seleccionar",
        "terminal consola",
        "inquilino tenant",
        "alto version",
        "maquina ordenador equipo pc",
        "trama tramas frame frames evento",
    ),
    greetings=word_set("""hola buenas buenos dias tardes noches que tal saludos hey cauce ayuda hi hello prueba"""),
    thanks=word_set("""gracias muchas mil genial perfecto vale ok adios hasta luego muy amable bien"""),
    who=re.compile(
        r"\b(?:quien|que) eres\b|\beres (?:un |una )?(?:ia|humano|humana|bot|robot|real|chatgpt|gpt|claude|gemini|llm|persona|modelo|"
        r"inteligencia)\b|\bcomo te llamas\b|\bcual es tu nombre\b|\bque (?:puedes|sabes) hacer\b|\bpresentate\b"
    ),
    remembers=re.compile(
        r"\b(?:he dicho|dije|te conte|he contado|mencione|he mencionado|pregunte|he preguntado|recuerdas|te acuerdas|escribi|comente)\b"
        r"|\bme llam(?:o|aba)\b|\bmi (?:ultimo|ultima|anterior|primer|primera) (?:mensaje|pregunta)\b"
    ),
    replied=re.compile(
        r"\b(?:dijiste|me has dicho|has respondido|respondiste|contestaste|me contaste|mencionaste)\b|\btu (?:ultima|anterior|primera) respuesta\b"
    ),
    own=re.compile(r"\b(?:mi|mis|mio|mia|soy|estoy|vivo|trabajo|tengo)\b"),
    instruction=re.compile(
        r"\bcomo (?:puedo|debo|se|configuro|cambio|anado|uso|pongo|hago|creo|conecto|instalo|arranco)\b|\b(?:puedo|quiero|necesito)\b|\bdonde (?:puedo|pongo|esta)\b"
    ),
    personal=word_set(
        """nombre llamo llamaba edad anos cumpleanos vivo trabajo favorito favorita mujer marido hijo hija perro gato
        correo telefono apellido"""
    ),
    defines=re.compile(r"^\W*(?:que (?:es|son|significa)|hablame de|explicame)\b"),
    writes=re.compile(
        r"^\W*(?:(?:por favor|ahora|puedes|podrias) )*(?:escrib(?:e|eme|ir)|reescrib|redact|compon|traduc|resum|parafrase|convert|conviert|calcul|"
        r"resuelv|dibuj|invent|imagin|depura|recomiend)\w*"
    ),
    introduces=re.compile(r"\b(?:[Ss]oy|[Mm]e llamo|[Ll]lámame) [A-ZÁÉÍÓÚÑ]\w+"),
    named="nombre",
    phrases=Phrases(
        introduction=(
            "¡Hola! Soy el respondedor sin conexión de Cauce, no un modelo de lenguaje: cito la guía de Cauce y lo que se ha dicho "
            "en esta conversación. Pregúntame, por ejemplo, cómo configurar un proveedor, cómo cambiar el puerto o cómo reanudar "
            "un stream."
        ),
        welcome="De nada. Pregúntame lo que quieras sobre Cauce.",
        unknown=(
            "No he encontrado respuesta a eso en la guía de Cauce ni en esta conversación.",
            "Soy el respondedor sin conexión: cito la documentación de Cauce y no soy un modelo de lenguaje.",
        ),
        connect=(
            "Para recibir respuestas de un modelo, conecta uno: define `OPENAI_API_KEY`, `ANTHROPIC_API_KEY` o `GEMINI_API_KEY` y arranca Cauce de nuevo, arranca Ollama "
            "en esta máquina, o ejecuta `cauce config init` y añade un proveedor a `cauce.toml`."
        ),
        check="Si ya hay un modelo configurado, `cauce check` dice por qué no responde.",
        failed="Aquí hay modelos configurados, pero ahora no responde ninguno: `cauce check` dice por qué.",
        told="Dijiste: «{}»",
        answered="La respuesta fue: «{}»",
        sources="Fuentes:",
        conversation="Esta conversación, mensaje {}",
    ),
)
